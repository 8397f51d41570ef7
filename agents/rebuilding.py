"""A version built beside the one that answers, in processes of its own: who does what, how far it is, and when it is ready."""

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from aiokafka.errors import KafkaError

from agents.log_ends import open_log_ends
from agents.reader import back_off_seconds
from agents.refolding import STOPPED
from agents.registry import Registry
from agents.stores import Stores, partitions_of
from compose.settings import Settings
from projections.queries.versions import Version
from projections.sinks.sink import StoreUnavailable

WORKERS = max(1, (os.cpu_count() or 1) // 2)  # unless told otherwise: whoever asks something finds a processor
LOOK_SECONDS = 0.5
RATE_OVER_SECONDS = 30.0  # what events a second are averaged over
END_SECONDS = 60.0  # for a process that is told to stop: a batch, at most
MOST_DEATHS = 20  # of its processes without any progress in between
# What glibc gives back to the system as soon as it is freed (`man 3 mallopt`). By itself it raises this to 32 MB with the first large
# buffer, and what a fetch or a batch took stays scattered over its heap.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1024 * 1024)}


class Progress(NamedTuple):
    """How far the version is: so many events of as many as the log holds by now, and how many a second lately."""

    folded: int
    events: int
    events_per_second: float

    @property
    def seconds_left(self) -> float | None:
        """At this pace; None when nothing moves."""
        return (self.events - self.folded) / self.events_per_second if self.events_per_second else None


class Stopped(Exception):
    """The rebuild cannot go on by itself; the message says why, and the way out."""


class Rebuilding:
    """Builds one version with `workers` processes, each with partitions of its own. `rate` is the most records a second for all of them,
    0 for as many as can be."""

    def __init__(self, settings: Settings, stores: Stores, version: Version, *, workers: int, rate: int = 0) -> None:
        self._settings = settings
        self._stores = stores
        self._version = version
        self._registry = Registry(stores.pool)
        self._sink = stores.sink(version)
        self._rate = rate
        self._partitions = partitions_of(version.projection)
        self._workers = min(workers, len(self._partitions))
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._seen: deque[tuple[float, int]] = deque()
        self._events = 0
        self._deaths = 0

    async def run(self, show: Callable[[Progress], None]) -> bool:
        """Build it until it is ready; False when it was paused before. Killed, another run goes on from the checkpoints.

        Raises Stopped, NotNow when another process is at it, StoreUnavailable or KafkaError when a server is away at the start.
        """
        async with self._registry.at_work(self._version.projection):
            await self._registry.pause(self._version, False)
            await self._sink.prepare()
            # Before the first batch: a board that knows no time yet would keep every minute of the log.
            await self._sink.tick(datetime.now(UTC))
            try:
                if not await self._fold(show):
                    return False
            finally:
                await self._end_processes()
            await self._registry.move(self._version, to="ready")
            show(await self._progress(anew=True))
            return True

    async def _fold(self, show: Callable[[Progress], None]) -> bool:
        """Through the log with all processes, to where it ends by then; what comes later is for a worker. False when it is paused."""
        for number in range(self._workers):
            await self._start(number)
        looks = 0
        while self._processes:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            with suppress(StoreUnavailable, KafkaError, TimeoutError):
                if await self._registry.is_paused(self._version):
                    return False
                await self._sink.tick(datetime.now(UTC))
                show(await self._progress(anew=looks % 10 == 0))
            for number, process in list(self._processes.items()):
                if process.returncode is not None:
                    await self._ended(number, process)
        return True

    async def _start(self, number: int) -> None:
        dealt = self._partitions[number :: self._workers]
        name, version = self._version.projection, self._version.number
        rate = -(-self._rate // self._workers)
        self._processes[number] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agents.refolding", name, str(version), str(rate), *map(str, dealt)),
            env={**os.environ, **GIVEN_BACK, "ET_PREFIX": self._settings.prefix},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def _ended(self, number: int, process: asyncio.subprocess.Process) -> None:
        """A process that died is started again; one that says why it cannot go on ends the rebuild."""
        del self._processes[number]
        assert process.stdout is not None
        if process.returncode == 0:
            return
        words = (await process.stdout.read()).decode().strip()
        self._deaths += 1
        if process.returncode == STOPPED:
            raise Stopped(words)
        if self._deaths > MOST_DEATHS:
            raise Stopped(
                f"its processes ended {self._deaths} times (status {process.returncode}{': ' + words if words else ''}); "
                f"`faust -A agents resume {self._version.projection}` goes on"
            )
        await asyncio.sleep(back_off_seconds(self._deaths))
        await self._start(number)

    async def _end_processes(self) -> None:
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + END_SECONDS
        for process in self._processes.values():
            try:
                await asyncio.wait_for(process.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                process.kill()
                await process.wait()
        self._processes.clear()

    async def _progress(self, *, anew: bool) -> Progress:
        if anew or not self._events:
            async with open_log_ends(self._settings) as log:
                self._events = sum((await log.ends(self._partitions)).values())
        folded = sum((await self._stores.checkpoints(self._version).next_offsets(self._partitions)).values())
        now = time.monotonic()
        if self._seen and folded > self._seen[-1][1]:
            self._deaths = 0
        self._seen.append((now, folded))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_OVER_SECONDS:
            self._seen.popleft()
        (since, before), passed = self._seen[0], now - self._seen[0][0]
        return Progress(folded, self._events, (folded - before) / passed if passed > 0 and since else 0.0)
