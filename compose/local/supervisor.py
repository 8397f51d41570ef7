"""One process behind a stack: it starts the others, keeps them up, and stops them, as told through a socket in `run/`."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from compose.local.ports import check_free
from compose.local.process import as_servant, end_session, forgotten, start, stop
from compose.local.programs import Gateway, Media, Worker, provision
from compose.local.servers import S3, Elasticsearch, Kafka, Postgres, Redis
from compose.local.service import Server, Service
from compose.local.stack import CannotStart, Stack

FIRST_PAUSE_SECONDS = 0.1  # before a process that died is started again
LONGEST_PAUSE_SECONDS = 30.0
SETTLED_SECONDS = 20.0  # who lived this long died of something new: the pause starts again from the first
ASK_EVERY_SECONDS = 0.1

SERVICES: dict[str, type[Service]] = {
    service.name: service for service in (Kafka, Postgres, Redis, Elasticsearch, S3, Gateway, Worker, Media)
}
Tell = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(eq=False)
class Kept:
    """A service that this supervisor keeps up."""

    service: Service
    process: Process
    since: float
    restarts: int = 0
    keeper: asyncio.Task[None] | None = None


class Supervisor:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.kept: dict[str, Kept] = {}
        self.busy = asyncio.Lock()
        self.orders = 0  # being carried out, or waiting for their turn
        self.stopping = asyncio.Event()

    async def up(self, names: Iterable[str], tell: Tell) -> None:
        """Servers first and together, then topics, tables and buckets, then the programs together.

        Raises CannotStart, with everything stopped again that this call has started.
        """
        wanted = [SERVICES[name](self.stack) for name in names if name not in self.kept]
        kept_already = [self.kept[name] for name in names if name in self.kept]
        servers = [service for service in wanted if isinstance(service, Server)]
        programs = [service for service in wanted if not isinstance(service, Server)]
        check_free(self.stack, wanted)
        await asyncio.gather(*(self.wait_until_ready(kept) for kept in kept_already))
        try:
            await self.start_together(servers, tell)
            if programs:
                await tell({"name": "provisioning", "state": "starting", "detail": "topics, tables, indices, bucket"})
                await tell({"name": "provisioning", "state": "up", "detail": await provision(self.stack)})
            await self.start_together(programs, tell)
        except BaseException:
            await self.down([service.name for service in wanted], tell)
            raise

    async def start_together(self, services: Sequence[Service], tell: Tell) -> None:
        """Raises the first failure, when the others have been called off."""
        try:
            async with asyncio.TaskGroup() as group:
                for service in services:
                    group.create_task(self.start_one(service, tell))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def start_one(self, service: Service, tell: Tell) -> None:
        """Raises CannotStart when the process dies, or does not answer in its time."""
        began = time.monotonic()
        await tell({"name": service.name, "state": "starting", "detail": f"waits for {service.waits_for}"})
        kept = self.kept[service.name] = Kept(service, await self.launch(service), time.monotonic())
        await self.wait_until_ready(kept)
        kept.keeper = asyncio.create_task(self.keep(kept))
        await tell({"name": service.name, "state": "up", "detail": f"after {time.monotonic() - began:.1f} s"})

    async def wait_until_ready(self, kept: Kept) -> None:
        """Raises CannotStart when it dies before, unless it is kept up already, or takes too long."""
        service, log = kept.service, self.stack.log(kept.service.name)
        deadline = time.monotonic() + service.start_patience_seconds
        while not await service.ready():
            if kept.process.returncode is not None and kept.keeper is None:
                raise CannotStart(f"{service.name} died while starting ({ending(kept.process)}): see {log}")
            if time.monotonic() > deadline:
                limit = f"{service.start_patience_seconds:.0f} s"
                again = f", was started again {kept.restarts} times" if kept.restarts else ""
                raise CannotStart(
                    f"{service.name} is not ready after {limit}{again}: it waits for {service.waits_for}; see {log}"
                )
            await asyncio.sleep(ASK_EVERY_SECONDS)

    async def launch(self, service: Service) -> Process:
        """Lays out before every start, since what died may have left something half-written."""
        await asyncio.to_thread(service.prepare)
        command = service.command()
        return await start(
            as_servant(command, self.stack.folder, self.stack.opt) if isinstance(service, Server) else command,
            log=self.stack.log(service.name),
            pid_file=self.stack.pid_file(service.name),
            environment=self.stack.environment | service.environment(),
            folder=service.folder,
        )

    async def keep(self, kept: Kept) -> None:
        """Starts it again whenever it ends: at once at first, ever later while it dies young."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            await kept.process.wait()
            end_session(kept.process.pid)
            lived = time.monotonic() - kept.since
            pause = FIRST_PAUSE_SECONDS if lived > SETTLED_SECONDS else pause
            say(f"{kept.service.name} ended after {lived:.0f} s ({ending(kept.process)}); again in {pause:.1f} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                kept.process = await self.launch(kept.service)
            except (OSError, CannotStart) as failure:  # a program removed while we ran: it may come back
                say(f"{kept.service.name} cannot be started again: {failure}")
            kept.since = time.monotonic()
            kept.restarts += 1

    async def down(self, names: Iterable[str], tell: Tell) -> None:
        """Programs before servers, so that none of them sees its servers go."""
        wanted = [self.kept[name] for name in names if name in self.kept]
        servers = [kept for kept in wanted if isinstance(kept.service, Server)]
        for wave in ([kept for kept in wanted if kept not in servers], servers):
            await asyncio.gather(*(self.stop_one(kept, tell) for kept in wave))

    async def stop_one(self, kept: Kept, tell: Tell) -> None:
        name = kept.service.name
        if kept.keeper is not None:
            kept.keeper.cancel()
            await asyncio.wait([kept.keeper])
        await tell({"name": name, "state": "stopping", "detail": ""})
        await stop(kept.process, how=kept.service.stop_signal, patience_seconds=kept.service.stop_patience_seconds)
        self.stack.pid_file(name).unlink(missing_ok=True)
        self.kept.pop(name, None)
        await tell({"name": name, "state": "down", "detail": ""})

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One order a connection: progress in lines of JSON, and a last line that says how it ended."""

        async def tell(line: dict[str, Any]) -> None:
            with contextlib.suppress(ConnectionError):
                writer.write(json.dumps(line).encode() + b"\n")
                await writer.drain()

        order = json.loads(await reader.readline() or b"{}")
        ending: dict[str, Any] = {"done": True}
        self.orders += 1
        try:
            if order.get("do") == "status":
                ending["kept"] = await self.describe()
            elif order.get("do") == "up":
                async with self.busy:
                    await self.carry_out(self.up(order["names"], tell), reader)
            elif order.get("do") == "down":
                async with self.busy:
                    await self.down(order["names"] or list(self.kept), tell)
        except CannotStart as failure:
            say(str(failure))
            ending = {"failed": str(failure)}
        except Exception as error:
            ending = {"failed": f"the supervisor failed ({error!r}): see {self.stack.log('supervisor')}"}
            raise
        finally:
            self.orders -= 1
            leaves = not self.kept and not self.orders
            await tell({**ending, "leaves": os.getpid() if leaves else None})
            writer.close()
            if leaves:
                self.stopping.set()

    async def carry_out(self, order: Any, reader: asyncio.StreamReader) -> None:
        """Until it is done, or whoever ordered it hangs up: then it is called off and nothing half-started remains."""
        work = asyncio.ensure_future(order)
        hung_up = asyncio.ensure_future(reader.read())
        await asyncio.wait((work, hung_up), return_when=asyncio.FIRST_COMPLETED)
        hung_up.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait([work])
            return
        await work

    async def describe(self) -> dict[str, dict[str, Any]]:
        """What is kept up, asked just now."""
        kept = list(self.kept.values())
        ready = await asyncio.gather(*(one.service.ready() for one in kept))
        return {
            one.service.name: {
                "pid": None if one.process.returncode is not None else one.process.pid,
                "ready": well,
                "restarts": one.restarts,
                "seconds": time.monotonic() - one.since,
            }
            for one, well in zip(kept, ready, strict=True)
        }

    async def serve(self) -> None:
        """Until all is down. The folder is reached through its descriptor: a socket's path may be 108 bytes at most."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.stopping.set)
        folder = os.open(self.stack.run, os.O_PATH)
        socket = self.stack.run / "supervisor.sock"
        socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self.answer, f"/proc/self/fd/{folder}/{socket.name}")
        async with server:
            await self.stopping.wait()
            server.close()
            await self.down(list(self.kept), silence)
        socket.unlink(missing_ok=True)


async def silence(line: dict[str, Any]) -> None:
    """Nobody listens."""


def ending(process: Process) -> str:
    code = process.returncode or 0
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, file=sys.stderr, flush=True)


def end_forgotten(stack: Stack) -> None:
    """Ends what a supervisor left that was itself killed."""
    left = [process for name in SERVICES if (process := forgotten(stack.pid_file(name), stack.folder))]
    for process in left:
        say(f"ends the forgotten {process.name()} ({process.pid})")
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=10)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    for process in left:
        end_session(process.pid)
    for name in SERVICES:
        stack.pid_file(name).unlink(missing_ok=True)


def supervise(folder: Path) -> None:
    """The supervisor's whole life. A second one for the same folder leaves at once."""
    stack = Stack(folder)
    lock = stack.pid_file("supervisor").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    end_forgotten(stack)
    asyncio.run(Supervisor(stack).serve())
    stack.pid_file("supervisor").unlink(missing_ok=True)
