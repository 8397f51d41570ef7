"""The gateway's processes: as many as set, on one port (SO_REUSEPORT); the first keeps the others alive."""

import asyncio
import multiprocessing
import os
import signal
import tempfile
import time
from multiprocessing.process import BaseProcess

import structlog
import uvloop
from aiohttp import web
from prometheus_client.multiprocess import mark_process_dead

from compose.garbage import collect_seldom
from compose.metrics import PROCESSES_FOLDER
from compose.settings import Settings, settings
from compose.telemetry import start_logging
from gateway.app import build_app

SHUTDOWN_SECONDS = 5.0
KEEPALIVE_SECONDS = 75.0
BACKLOG = 1_024  # connections that wait to be taken up: of a thousand that come at once, more than these are refused
LOOK_SECONDS = 0.2
FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 0.2, 10.0
LIVED_WELL_SECONDS = 10.0

logger = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """One process: answers until it is told to stop, then lets what is under way end within five seconds."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if parent := multiprocessing.parent_process():
        # A parent that was killed passes nothing on, and its successor starts processes of its own.
        asyncio.get_running_loop().add_reader(parent.sentinel, stop.set)
    runner = web.AppRunner(
        build_app(settings), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, keepalive_timeout=KEEPALIVE_SECONDS
    )
    await runner.setup()
    try:
        await web.TCPSite(
            runner, settings.gateway_host, settings.gateway_port, reuse_port=True, backlog=BACKLOG
        ).start()
        collect_seldom()
        logger.info("listening", host=settings.gateway_host, port=settings.gateway_port, pid=os.getpid())
        await stop.wait()
    finally:
        await runner.cleanup()


def run() -> None:
    """One process, from its start to its end."""
    start_logging(settings(), "gateway")
    uvloop.run(serve(settings()))
    # All is closed and said: taking the interpreter apart would only make a stop wait for seconds on a busy machine.
    os._exit(0)


class Parent:
    """Starts the processes, starts again what dies (later, if it dies at once), and passes on the order to stop."""

    def __init__(self, processes: int) -> None:
        # Spawned, not forked: a child begins with no loop, no threads and no sockets of its parent.
        self._spawn = multiprocessing.get_context("spawn")
        self._children: list[BaseProcess | None] = [None] * processes
        self._started = [0.0] * processes
        self._back_off = [0.0] * processes
        self._stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        with tempfile.TemporaryDirectory(prefix="entertainmenttime-metrics-") as folder:
            os.environ[PROCESSES_FOLDER] = folder
            self._keep_running()

    def _keep_running(self) -> None:
        while not self._stopping:
            for place, child in enumerate(self._children):
                self._look_after(place, child)
            time.sleep(LOOK_SECONDS)
        for child in filter(None, self._children):
            child.terminate()
        deadline = time.monotonic() + SHUTDOWN_SECONDS + 1
        for child in filter(None, self._children):
            child.join(max(0.0, deadline - time.monotonic()))
            if child.is_alive():
                child.kill()

    def _look_after(self, place: int, child: BaseProcess | None) -> None:
        if child is not None and child.is_alive():
            return
        now = time.monotonic()
        if child is not None:
            if self._started[place] < now - LIVED_WELL_SECONDS:
                self._back_off[place] = 0.0
            if now < self._started[place] + self._back_off[place]:
                return
            logger.warning("a gateway process died and is started again", exit_code=child.exitcode)
            # Who followed a board there follows none; what it counted stays counted.
            mark_process_dead(child.pid)  # type: ignore[no-untyped-call]
            self._back_off[place] = min(
                LONGEST_BACK_OFF_SECONDS, max(FIRST_BACK_OFF_SECONDS, self._back_off[place] * 2)
            )
        fresh = self._spawn.Process(target=run, daemon=True)
        fresh.start()
        self._children[place], self._started[place] = fresh, now

    def _stop(self, *_: object) -> None:
        self._stopping = True
