"""What is gathered is written once, whenever it is written, and whoever dies with it loses nothing."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.gathering import Gathering
from projections.changes import Append, Change, Forget, Tally, Upsert, Upserts
from projections.occurrences import Occurrences
from projections.sinks.memory import MemorySink
from projections.sinks.sink import ChangeRefused, Checkpoint, CheckpointMoved, LogIdentity, Step, StoreUnavailable
from projections.statistics import statistics
from schemas.log import Place

LOG = LogIdentity("cluster", "topic-id", 2)
TABLES = ("hourly", "latest", "newest", "raw")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Store(MemorySink):
    """Keeps which stretches were written; is away for the next so many of them, and refuses each that holds a spoilt offset."""

    def __init__(self) -> None:
        super().__init__(statistics)
        self.written: list[tuple[int, int, int]] = []
        self.away = 0
        self.spoilt: set[int] = set()

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("memory", "away")
        if any(expected.offset <= offset < next_offset for offset in self.spoilt):
            raise ChangeRefused("statistics", changes, "spoilt")
        await super().apply(changes, expected=expected, next_offset=next_offset, step=step)
        self.written.append((expected.partition, expected.offset, next_offset))


def meant(partition: int, offset: int) -> list[Change]:
    """What the record there means: something of each kind."""
    name = "abc"[offset % 3]
    return [
        Tally("hourly", ("video_id", "start"), Occurrences.of([name], np.array([offset % 2]))),
        Upsert("latest", {"video_id": f"{partition}{name}"}, {"at": offset}),
        Upserts("newest", ("video_id",), ("at", "by"), [(f"{partition}{name}", offset * 7 % 10, offset)], "at"),
        Append("raw", ("place",), ("video_id",), [(f"{partition}/{offset}", name)]),
    ]


async def apply(sink: Any, partition: int, first: int, end: int, **options: Any) -> None:
    changes = [change for offset in range(first, end) for change in meant(partition, offset)]
    await sink.apply(changes, expected=Place("views", partition, first), next_offset=end, **options)


async def fold(sink: Any, partition: int, end: int, records: int, *, most_failures: int = 0) -> None:
    """From its checkpoint to `end`, and whatever fails is tried again from there."""
    failures = 0
    at: int | None = None
    while True:
        try:
            if at is None:
                at = (await sink.checkpoint("views", partition, LOG)).next_offset
            while at < end:
                following = min(end, at + records)
                await apply(sink, partition, at, following)
                at = following
            await sink.write("views", partition)
            return
        except (StoreUnavailable, CheckpointMoved):
            failures += 1
            assert failures <= most_failures
            at = None


def rows(sink: MemorySink) -> list[Any]:
    return [sink.rows(table) for table in TABLES]


async def plainly(ends: Sequence[int]) -> list[Any]:
    store = MemorySink(statistics)
    for partition, end in enumerate(ends):
        await store.checkpoint("views", partition, LOG)
        await apply(store, partition, 0, end)
    return rows(store)


@given(st.data())
def test_in_any_batches_with_any_store_and_any_death_it_is_as_if_each_batch_were_written(data: st.DataObject) -> None:
    async def run() -> None:
        store = Store()
        ends = [data.draw(st.integers(0, 30)) for _ in range(2)]
        for _ in range(data.draw(st.integers(0, 3))):
            # Dies somewhere, with what it has gathered.
            sink = gathering(store, data)
            for partition, end in enumerate(ends):
                place = (await sink.checkpoint("views", partition, LOG)).next_offset
                for first in range(place, data.draw(st.integers(0, end)), 4):
                    await apply(sink, partition, first, min(end, first + 4))
        store.away = data.draw(st.integers(0, 3))
        sink = gathering(store, data)
        for partition, end in enumerate(ends):
            await fold(sink, partition, end, data.draw(st.integers(1, 7)), most_failures=12)
        assert rows(store) == await plainly(ends)
        for partition, end in enumerate(ends):
            stretches = [(first, following) for number, first, following in store.written if number == partition]
            assert [first for first, _ in stretches] == [0, *(following for _, following in stretches)][
                : len(stretches)
            ]
            assert (await store.checkpoint("views", partition, LOG)).next_offset == end

    asyncio.run(run())


def gathering(store: Store, data: st.DataObject) -> Gathering:
    return Gathering(
        store,
        most_rows=data.draw(st.sampled_from([1, 9, 1_000])),
        most_records=data.draw(st.sampled_from([1, 8, 1_000])),
        most_parts=data.draw(st.sampled_from([2, 3, 32])),
    )


async def begun(store: Store, **limits: int) -> Gathering:
    sink = Gathering(store, **limits)
    for partition in range(2):
        await sink.checkpoint("views", partition, LOG)
    return sink


async def test_it_is_written_once_it_is_much() -> None:
    store = Store()
    sink = await begun(store, most_records=10)
    for first in range(0, 25, 5):
        await apply(sink, 0, first, first + 5)
    assert store.written == [(0, 0, 10), (0, 10, 20)]
    store = Store()
    sink = await begun(store, most_rows=18)  # three a record, and none for what is merely counted
    for first in range(0, 25, 5):
        await apply(sink, 0, first, first + 5)
    assert store.written == [(0, 0, 10), (0, 10, 20)]


async def test_once_all_partitions_have_gathered_much_all_are_written_at_once() -> None:
    class Slow(Store):
        """Writes no stretch before all that came at once have come."""

        async def apply(self, changes: Sequence[Change], **options: Any) -> None:
            came.append(options["expected"].partition)
            await asyncio.sleep(0)
            assert came == [0, 1]
            await super().apply(changes, **options)

    came: list[int] = []
    store = Slow()
    sink = await begun(store, most_records=10)
    await apply(sink, 0, 0, 5)
    await apply(sink, 1, 0, 4)
    assert came == []
    await apply(sink, 1, 4, 6)
    assert sorted(store.written) == [(0, 0, 5), (1, 0, 6)]


@pytest.mark.parametrize("how", ["writes", "goes on"])
@pytest.mark.parametrize("why", ["away", "refuses", "moved"])
async def test_what_is_the_matter_with_another_partition_is_told_to_who_goes_on_with_that(why: str, how: str) -> None:
    store = Store()
    sink = await begun(store, most_records=10)
    await apply(sink, 0, 0, 9)
    match why:
        case "away":
            store.away = 1  # for the first of the two
        case "refuses":
            store.spoilt = {8}
        case "moved":
            await apply(store, 0, 0, 3)
    await apply(sink, 1, 0, 5)
    assert (1, 0, 5) in store.written
    assert (0, 0, 9) not in store.written
    store.spoilt = set()
    if why == "away":
        await sink.write("views", 0)
    else:
        # Whoever has come to its end hears of it too.
        with pytest.raises(CheckpointMoved):
            await (sink.write("views", 0) if how == "writes" else apply(sink, 0, 9, 10))
    for partition in range(2):
        await fold(sink, partition, 12, 4)
    assert rows(store) == await plainly([12, 12])


async def test_what_nobody_expected_of_another_partition_is_raised() -> None:
    class Broken(Store):
        async def apply(self, changes: Sequence[Change], **options: Any) -> None:
            if options["expected"].partition == 0:
                raise LookupError("nobody expected it")

    sink = await begun(Broken(), most_records=10)
    await apply(sink, 0, 0, 9)
    with pytest.raises(LookupError):
        await apply(sink, 1, 0, 5)


async def test_who_asks_how_far_it_is_finds_it_written() -> None:
    store = Store()
    sink = await begun(store)
    await apply(sink, 0, 0, 5)
    await apply(sink, 1, 0, 5)
    assert store.written == []
    assert await sink.newest_step("views", 0) == Step(5, None)
    assert await sink.checkpoint("views", 1, LOG) == Checkpoint(Place("views", 1, 5), LOG)
    assert store.written == [(0, 0, 5), (1, 0, 5)]


@pytest.mark.parametrize("alone", ["a step", "who forgets"])
async def test_what_others_look_for_is_written_as_it_comes(alone: str) -> None:
    store = Store()
    sink = await begun(store)
    await apply(sink, 0, 0, 5)
    if alone == "a step":
        await apply(sink, 0, 5, 6, step="parks")
    else:
        forget = Forget("raw", {"video_id": "a"})
        await sink.apply([forget], expected=Place("views", 0, 5), next_offset=6)
    assert store.written == [(0, 0, 5), (0, 5, 6)]


async def test_a_decision_is_written_as_it_comes() -> None:
    store = Store()
    sink = Gathering(store)
    await sink.checkpoint("decisions", 0, LOG)
    await sink.apply(meant(0, 0), expected=Place("decisions", 0, 0), next_offset=1)
    assert store.written == [(0, 0, 1)]


async def test_a_batch_that_comes_twice_is_turned_away() -> None:
    sink = await begun(Store())
    await apply(sink, 0, 0, 5)
    with pytest.raises(CheckpointMoved):
        await apply(sink, 0, 0, 5)


async def test_another_writer_meanwhile_wins_and_nothing_is_kept() -> None:
    store = Store()
    sink = await begun(store)
    await apply(sink, 0, 0, 5)
    await apply(store, 0, 0, 3)
    with pytest.raises(CheckpointMoved):
        await sink.write("views", 0)
    await fold(sink, 0, 9, 4)
    assert rows(store) == await plainly([9])


async def test_what_the_store_refuses_is_looked_for_batch_by_batch() -> None:
    store = Store()
    sink = await begun(store)
    store.spoilt = {7}
    for first in range(0, 12, 3):
        await apply(sink, 0, first, first + 3)
    with pytest.raises(CheckpointMoved):
        await sink.write("views", 0)
    assert (await sink.checkpoint("views", 0, LOG)).next_offset == 0
    for first in (0, 3):
        await apply(sink, 0, first, first + 3)
    assert store.written == [(0, 0, 3), (0, 3, 6)]
    with pytest.raises(ChangeRefused):
        await apply(sink, 0, 6, 9)


async def test_time_passes_and_a_drop_takes_what_is_gathered() -> None:
    store = Store()
    sink = await begun(store)
    await sink.prepare()
    await sink.tick(NOW)
    await apply(sink, 0, 0, 5)
    await sink.drop()
    assert (await sink.checkpoint("views", 0, LOG)).next_offset == 0
    assert store.written == []
