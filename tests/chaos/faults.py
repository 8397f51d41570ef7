"""Doing what a scenario says to the processes of one stack, and undoing what lasts."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from compose.local.process import forgotten
from compose.settings import Settings
from tests.chaos.history import History
from tests.chaos.scenario import Fault, Planned
from tests.servers import Servers
from tests.working import Worker

FIRST = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


class Victim(NamedTuple):
    """A process, or the group that a process of the stack leads with all its children."""

    pid: int
    send: Callable[[int, int], None]

    def signal(self, number: signal.Signals) -> bool:
        """Whether there was anybody to hear it."""
        try:
            self.send(self.pid, number)
        except ProcessLookupError:
            return False
        return True


class Faults:
    """Faults on the processes that the stack's supervisor keeps up, and on a second worker that is ours."""

    def __init__(self, servers: Servers, settings: Settings, history: History, folder: Path) -> None:
        self._servers = servers
        self._settings = settings
        self._history = history
        self._folder = folder
        self._second: Worker | None = None
        self._ending: list[asyncio.Task[None]] = []

    async def run(self, planned: Sequence[Planned]) -> None:
        """Everything in its time; returns when all of it is over."""
        try:
            for at_seconds, fault in planned:
                await asyncio.sleep(max(0.0, at_seconds - self._history.now))
                self._do(fault)
            await asyncio.gather(*self._ending)
        finally:
            for task in self._ending:
                task.cancel()
            await asyncio.gather(*self._ending, return_exceptions=True)
            if self._second is not None:
                self._second.kill()
        self._history.note("faults", "over", "all")

    def _do(self, fault: Fault) -> None:
        if fault.do == "join":
            if self._second is None:
                self._second = Worker(self._settings, self._servers, self._folder / "second.log", name="second")
                self._ending.append(asyncio.create_task(self._leaves(fault.seconds or 0)))
                self._history.note("faults", "fault", str(fault))
        elif (victim := self._victim(fault)) is not None and victim.signal(FIRST[fault.do]):
            self._history.note("faults", "fault", f"{fault.do} {fault.to}", seconds=fault.seconds)
            if fault.seconds:
                self._ending.append(asyncio.create_task(self._thaws(victim, fault.seconds)))

    def _victim(self, fault: Fault) -> Victim | None:
        """None where there is nobody just now: who was killed may not be up again."""
        if fault.to == "second":
            return Victim(self._second.process.pid, os.kill) if self._second else None
        stack = self._servers.stack
        process = forgotten(stack.pid_file(fault.to), stack.folder)
        return Victim(process.pid, os.killpg) if process else None

    async def _thaws(self, victim: Victim, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            victim.signal(signal.SIGCONT)

    async def _leaves(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        second, self._second = self._second, None
        assert second is not None
        if second.process.poll() is None:
            await asyncio.to_thread(second.stop)
