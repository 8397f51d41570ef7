"""Waiting for a checkpoint: however many wait, one question at a time."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from gateway.freshness import MAX_WAITING, Freshness
from gateway.joint import Joint
from gateway.problems import Problem
from gateway.waiting import Waiting
from projections.queries.versions import Versions
from projections.sinks.sink import StoreUnavailable
from schemas.log import Place

LONG = 3_600.0


class Store:
    """Checkpoints that count how often they are asked; `down` answers nobody."""

    def __init__(self) -> None:
        self.reached: dict[tuple[str, int], int] = {}
        self.questions = 0
        self.asking = 0
        self.down = False

    async def next_offsets(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        self.questions += 1
        self.asking += 1
        assert self.asking == 1, "two questions at a time"
        await asyncio.sleep(0)
        self.asking -= 1
        if self.down:
            raise StoreUnavailable("memory", "down")
        return {partition: self.reached.get(partition, 0) for partition in partitions}


def nobody() -> None:
    """Who would hurry."""


async def test_a_thousand_who_wait_are_one_question() -> None:
    store = Store()
    store.reached["views", 3] = 10_000
    waiting = Waiting(store, LONG, nobody)
    await asyncio.gather(*(waiting.wait([Place("views", 3, offset)]) for offset in range(1_000)))
    assert store.questions == 1


async def test_a_move_that_is_told_wakes_those_whose_write_is_folded_and_no_others() -> None:
    store = Store()
    waiting = Waiting(store, LONG, nobody)
    folded, other = (asyncio.create_task(waiting.wait([Place("views", 3, offset)])) for offset in (4, 5))
    await asyncio.sleep(0.01)
    asked = store.questions
    waiting.tell("views", 3, 5)
    await asyncio.wait_for(folded, 1)
    assert (other.done(), store.questions) == (False, asked)
    waiting.tell("views", 3, 6)
    await asyncio.wait_for(other, 1)


async def test_who_folds_is_told_to_hurry_when_somebody_has_to_wait_and_only_then() -> None:
    told = asyncio.Event()
    store = Store()
    store.reached["views", 3] = 5
    waiting = Waiting(store, LONG, told.set)
    await waiting.wait([Place("views", 3, 4)])
    assert not told.is_set()
    assert waiting.furthest == []
    later, earlier, other = Place("views", 3, 6), Place("views", 3, 5), Place("views", 7, 0)
    many = []
    for places in ([later, earlier], [other]):  # also whoever comes while another waits
        many += [asyncio.create_task(waiting.wait([place])) for place in places]
        await asyncio.wait_for(told.wait(), 1)
        told.clear()
    assert waiting.furthest == [later, other]
    await waiting.close()
    for waits in many:
        waits.cancel()


async def test_a_move_of_which_no_message_came_is_seen_all_the_same() -> None:
    store = Store()
    waiting = Waiting(store, 0.01, nobody)
    waits = asyncio.create_task(waiting.wait([Place("views", 3, 4), Place("views", 7, 1)]))
    await asyncio.sleep(0.03)
    store.reached |= {("views", 3): 5, ("views", 7): 2}
    await asyncio.wait_for(waits, 1)


async def test_who_comes_during_a_question_is_asked_for_at_once() -> None:
    store = Store()
    waiting = Waiting(store, LONG, nobody)
    first = asyncio.create_task(waiting.wait([Place("views", 3, 4)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert store.asking == 1
    store.reached["views", 7] = 2
    await asyncio.wait_for(waiting.wait([Place("views", 7, 1)]), 1)
    first.cancel()


async def test_a_store_that_is_down_is_told_to_all_who_wait_and_asked_anew_by_the_next() -> None:
    store = Store()
    store.down = True
    waiting = Waiting(store, LONG, nobody)
    told = await asyncio.gather(
        *(waiting.wait([Place("views", 3, offset)]) for offset in range(3)), return_exceptions=True
    )
    assert [type(error) for error in told] == [StoreUnavailable] * 3
    store.down = False
    store.reached["views", 3] = 9
    await asyncio.wait_for(waiting.wait([Place("views", 3, 4)]), 1)


async def test_nothing_is_asked_while_nobody_waits() -> None:
    store = Store()
    waiting = Waiting(store, 0.001, nobody)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting.wait([Place("views", 3, 4)]), 0.02)
    await asyncio.sleep(0.01)
    asked = store.questions
    await asyncio.sleep(0.03)
    assert store.questions == asked


async def test_who_asks_during_a_run_shares_the_next_one() -> None:
    began: list[int] = []
    go_on = asyncio.Event()

    async def work() -> int:
        began.append(len(began))
        await go_on.wait()
        return began[-1]

    joint = Joint(work)
    first = asyncio.create_task(joint())
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(joint()) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert began == [0]
    go_on.set()
    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 5


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    go_on = asyncio.Event()

    async def work() -> str:
        await go_on.wait()
        return "answer"

    joint = Joint(work)
    leaves, stays = asyncio.create_task(joint()), asyncio.create_task(joint())
    await asyncio.sleep(0.01)
    leaves.cancel()
    go_on.set()
    assert await stays == "answer"


async def test_more_than_a_thousand_are_not_kept_waiting() -> None:
    nothing: Any = None
    freshness = Freshness(nothing, Versions(), nothing, nothing, nothing, nothing)
    freshness._versions_waited_for[Versions().active("views").full_name] = Waiting(Store(), LONG, nobody)
    place = Place("views", 3, 4)
    waiting = [asyncio.create_task(freshness.wait(["views"], [place])) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0.01)
    with pytest.raises(Problem) as refused:
        await freshness.wait(["views"], [place])
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "2")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await freshness.wait(["views"], [place], 0.01) is False
