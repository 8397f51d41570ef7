"""What many ask for at once is done once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Joint(Generic[Result]):
    """Runs `work` for all who call: never twice at a time, and for each of them a run that began after the call."""

    def __init__(self, work: Callable[[], Awaitable[Result]]) -> None:
        self._work = work
        self._running: asyncio.Task[Result] | None = None
        self._next: asyncio.Task[Result] | None = None

    async def __call__(self) -> Result:
        """What `work` returns or raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._running))
            self._next.add_done_callback(_look_at)
        # Shielded: who leaves must not take the answer from the others.
        return await asyncio.shield(self._next)

    async def _run_after(self, running: asyncio.Task[Result] | None) -> Result:
        if running is not None:
            await asyncio.wait([running])
        # Whoever calls from here on comes too late for this run.
        self._running, self._next = self._next, None
        return await self._work()


def _look_at(task: asyncio.Task[Result]) -> None:
    """An error that all who called have left is nobody's."""
    if not task.cancelled():
        task.exception()
