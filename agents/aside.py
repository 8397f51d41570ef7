"""Thinking beside the event loop: while a long batch is decoded, what a store answers is taken up at once."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

LONG = 1_000  # records in a batch, from which on the way to another thread is worth it
SWITCH_SECONDS = 0.0005  # how long the event loop waits for its turn; of Python's 0.005 a store could do a call

P = ParamSpec("P")
T = TypeVar("T")

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")
_under_way: set[asyncio.Future[Any]] = set()


def take_turns() -> None:
    """Let the event loop have its turn soon, whatever is done aside."""
    sys.setswitchinterval(SWITCH_SECONDS)


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, done in the one thread that all such work shares: no two pieces of it run at once, and one that is given up is
    waited for."""
    running = asyncio.get_running_loop().run_in_executor(_thread, lambda: work(*args, **kwargs))
    _under_way.add(running)
    running.add_done_callback(_under_way.discard)
    try:
        return await asyncio.shield(running)
    finally:
        await asyncio.wait([running])


async def thinking(items: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, done aside when it is about many items."""
    return await aside(work, *args, **kwargs) if items >= LONG else work(*args, **kwargs)


def is_nothing_aside() -> bool:
    """Whether what is done here and now runs at the same time as nothing that is done aside."""
    return not _under_way
