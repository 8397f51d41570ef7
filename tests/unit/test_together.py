"""Batches that are written together mean what they mean one by one, and each has its own outcome."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.changes import Append, Change, Forget, Increment, Tally, Upsert, Upserts
from projections.sinks.memory import MemorySink
from projections.sinks.sink import ChangeRefused, StoreUnavailable
from projections.sinks.together import Batch, Together, joined
from projections.statistics import statistics
from schemas.log import Place

MOST_RECORDS = 100
NAMES = st.sampled_from("abc")


def batch(partition: int, changes: Sequence[Change] = (), *, from_offset: int = 0, records: int = 1) -> Batch:
    return Batch(changes, Place("views", partition, from_offset), from_offset + records)


class Store:
    """Writes what it is given once it may, and keeps it; refuses whatever is with one that is spoilt."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.writes = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.spoilt: set[int] = set()
        self.error: Exception = ChangeRefused("statistics", [], "spoilt")

    async def write(self, batches: Sequence[Batch]) -> None:
        assert not self.writes.is_set()
        self.writes.set()
        try:
            numbers = [one.expected.partition for one in batches]
            self.calls.append(numbers)
            await self.may_write.wait()
            if self.spoilt & set(numbers):
                raise self.error
        finally:
            self.writes.clear()


async def begun(store: Store, *batches: Batch) -> tuple[Together, list["asyncio.Task[None]"]]:
    """The first is being written, and the others wait for it."""
    store.may_write.clear()
    together = Together(store.write, MOST_RECORDS)
    joining = [asyncio.create_task(together.join(one)) for one in batches]
    await store.writes.wait()
    return together, joining


async def test_what_comes_while_one_is_written_is_written_together() -> None:
    store = Store()
    together, joining = await begun(store, batch(0))
    joining += [asyncio.create_task(together.join(batch(number))) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    store.may_write.set()
    await asyncio.gather(*joining)
    assert store.calls == [[0], [1, 2, 3]]
    await together.join(batch(4))
    assert store.calls[-1] == [4]


async def test_no_call_is_longer_than_is_good_for_others() -> None:
    store = Store()
    together, joining = await begun(store, batch(0))
    sizes = [MOST_RECORDS // 2, MOST_RECORDS // 2, MOST_RECORDS * 10, 1]
    joining += [asyncio.create_task(together.join(batch(n, records=size))) for n, size in enumerate(sizes, start=1)]
    await asyncio.sleep(0)
    store.may_write.set()
    await asyncio.gather(*joining)
    assert store.calls == [[0], [1, 2], [3], [4]]


@pytest.mark.parametrize("alone", [batch(2, [Forget("views", {"viewer_id": "a"})]), batch(2)._replace(step="parks")])
async def test_who_forgets_or_parks_is_written_alone(alone: Batch) -> None:
    store = Store()
    together, joining = await begun(store, batch(0))
    joining += [asyncio.create_task(together.join(one)) for one in (batch(1), alone, batch(3))]
    await asyncio.sleep(0)
    store.may_write.set()
    await asyncio.gather(*joining)
    assert store.calls == [[0], [1], [2], [3]]


async def outcomes(store: Store) -> list[type[BaseException] | None]:
    together, joining = await begun(store, batch(0))
    joining += [asyncio.create_task(together.join(batch(number))) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    store.may_write.set()
    found = await asyncio.gather(*joining, return_exceptions=True)
    return [None if one is None else type(one) for one in found]


async def test_one_that_fails_takes_no_other_with_it() -> None:
    store = Store()
    store.spoilt = {2}
    assert await outcomes(store) == [None, None, ChangeRefused, None]
    assert store.calls == [[0], [1, 2, 3], [1], [2], [3]]


async def test_a_store_that_is_away_is_away_for_all_of_them() -> None:
    store = Store()
    store.spoilt, store.error = {2}, StoreUnavailable("postgres", "down")
    assert await outcomes(store) == [None, StoreUnavailable, StoreUnavailable, StoreUnavailable]
    assert store.calls == [[0], [1, 2, 3]]


async def test_what_nobody_waits_for_any_more_is_given_up_and_the_next_is_written() -> None:
    store = Store()
    together, (first,) = await begun(store, batch(0))
    waiting = [asyncio.create_task(together.join(batch(number))) for number in (1, 2)]
    await asyncio.sleep(0)
    for one in (first, waiting[0]):
        one.cancel()
    await asyncio.wait([first, waiting[0]])
    store.may_write.set()
    await waiting[1]
    assert store.calls == [[0], [2]]
    assert [one.cancelled() for one in (first, *waiting)] == [True, True, False]


async def test_what_somebody_still_waits_for_goes_on_when_another_leaves() -> None:
    store = Store()
    together, (first,) = await begun(store, batch(0))
    waiting = [asyncio.create_task(together.join(batch(number))) for number in (1, 2)]
    await asyncio.sleep(0)
    let_the_first, store.may_write = store.may_write, asyncio.Event()
    let_the_first.set()
    await first
    await store.writes.wait()
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    store.may_write.set()
    await waiting[1]
    assert store.calls == [[0], [1, 2]]


increments = st.builds(lambda name, by: Increment("hourly", {"video_id": name}, by), NAMES, st.integers(1, 5))
tallies = st.builds(
    lambda counts: Tally("hourly", ("video_id",), {(name,): by for name, by in counts.items()}),
    st.dictionaries(NAMES, st.integers(1, 5), min_size=1),
)
upserts = st.builds(
    lambda name, at: Upsert("latest", {"video_id": name}, {"at": at}, newest_by="at"), NAMES, st.integers(0, 9)
)
newest = st.builds(
    lambda rows: Upserts("newest", ("video_id",), ("at", "by"), rows, "at"),
    st.lists(st.tuples(NAMES, st.integers(0, 3), st.integers(0, 9))),
)


def appended(partition: int, number: int) -> Append:
    return Append("raw", ("place",), ("video_id",), [(f"{partition}/{number}", "a")])


@given(st.lists(st.lists(st.one_of(increments, tallies, upserts, newest), max_size=5), min_size=1, max_size=4))
def test_joined_they_mean_what_they_mean_one_after_the_other(by_partition: list[list[Any]]) -> None:
    batches = [
        batch(number, [*changes, *(appended(number, row) for row in range(len(changes)))])
        for number, changes in enumerate(by_partition)
    ]
    one_by_one, together = MemorySink(statistics), MemorySink(statistics)
    for one in batches:
        for change in one.changes:
            one_by_one.write(change)
    changes = joined([one.changes for one in batches])
    for change in changes:
        together.write(change)
    for table in ("hourly", "latest", "newest", "raw"):
        assert together.rows(table) == one_by_one.rows(table)
    if len(batches) > 1:
        assert len([change for change in changes if isinstance(change, Tally | Upserts | Append)]) <= 3
