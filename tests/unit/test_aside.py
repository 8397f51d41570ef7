"""What is done aside is done one after the other, and the event loop goes on meanwhile."""

import asyncio
import threading

import pytest

from agents.aside import aside, is_nothing_aside


async def test_no_two_pieces_run_at_once_and_the_loop_goes_on() -> None:
    begun, may_end = threading.Event(), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def work(number: int) -> int:
        running.append(number)
        most.append(len(running))
        begun.set()
        may_end.wait()
        running.remove(number)
        return number

    both = asyncio.gather(aside(work, 1), aside(work, 2))
    await asyncio.to_thread(begun.wait)
    assert not is_nothing_aside()
    may_end.set()
    assert await both == [1, 2]
    assert most == [1, 1]
    await asyncio.sleep(0)
    assert is_nothing_aside()


async def test_who_gives_up_waits_for_what_was_begun() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait()
        ended.set()

    waiting = asyncio.create_task(aside(work))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_what_goes_wrong_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(divmod, 1, 0)
