"""One batch: what is poison is parked before the checkpoint moves, and what the store refuses is found and parked alone."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.folding import Folding
from agents.handover import Batch, Partition
from projections.changes import Change
from projections.leaderboard import leaderboard
from projections.projection import Projection
from projections.sinks.memory import MemorySink
from projections.sinks.sink import ChangeRefused, CheckpointMoved, LogIdentity, StoreUnavailable
from projections.statistics import statistics
from projections.views import views
from schemas.envelope import encode
from schemas.log import Place
from schemas.partitions import partition_of
from tests.folding import OneWindow
from tests.given import recorded
from tests.parking_lot import Lot, NoDecisions
from tests.records import Kept, kept
from tests.working import viewed

PARTITIONS = {"views": 1}
LOG = LogIdentity("cluster", "topic", 1)
NOW = datetime(2026, 5, 1, 20, tzinfo=UTC)
AT_MS = round(NOW.timestamp() * 1_000)
HOME = Partition("views", 0)


class FussySink(MemorySink):
    """Refuses every change that speaks of the film `unwelcome`."""

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        if refused := [change for change in changes if "unwelcome" in str(change)]:
            raise ChangeRefused(views.name, refused, "it does not fit")
        await super().apply(changes, expected=expected, next_offset=next_offset, offsets=offsets, step=step)


class Bench:
    """A fold of views over a memory sink."""

    def __init__(self, projection: Projection = views) -> None:
        self.sink, self.lot, self.ids = FussySink(projection), Lot(), OneWindow()
        self.folding = Folding(projection, self.sink, self.lot, self.ids, PARTITIONS, NoDecisions())

    async def fold(self, *records: Kept, from_offset: int = 0) -> None:
        await self.sink.checkpoint(*HOME, LOG)
        await self.folding.fold(Batch(1, HOME, from_offset, from_offset + len(records), records))

    @property
    def counted(self) -> list[str]:
        return [row["view_id"] for row in self.sink.rows("views")]

    async def next_offset(self) -> int:
        return (await self.sink.checkpoint(*HOME, LOG)).next_offset


def record(offset: int, view_id: str, video_id: str = "film") -> Kept:
    message = encode(viewed(view_id, video_id, at=NOW), event_id=view_id, source="/tests")
    return kept(message, partition=0, offset=offset, timestamp=round(NOW.timestamp() * 1_000))


async def test_poison_is_parked_and_what_lies_around_it_is_folded() -> None:
    bench = Bench()
    await bench.fold(record(0, "a"), record(1, "b")._replace(value=b"no json"), record(2, "c"))
    assert bench.counted == ["a", "c"]
    assert [(parked.place.offset, parked.reason) for parked in bench.lot.parked] == [(1, "undecodable")]
    assert await bench.next_offset() == 3


async def test_the_checkpoint_stays_before_poison_that_cannot_be_parked() -> None:
    bench = Bench()
    bench.lot.is_down = True
    with pytest.raises(StoreUnavailable):
        await bench.fold(record(0, "a"), record(1, "b")._replace(value=None))
    assert await bench.next_offset() == 0


async def test_what_the_store_refuses_is_parked_alone_and_what_lies_behind_it_is_read_again() -> None:
    bench = Bench()
    films = ["film", "unwelcome", "film", "film", "unwelcome", "film", "film"]
    records = [record(offset, f"view-{offset}", film) for offset, film in enumerate(films)]
    for begun, refused in ((0, 1), (2, 4)):
        with pytest.raises(CheckpointMoved):
            await bench.fold(*records[begun:], from_offset=begun)
        assert await bench.next_offset() == refused + 1
    await bench.fold(*records[5:], from_offset=5)
    assert bench.counted == ["view-0", "view-2", "view-3", "view-5", "view-6"]
    assert [(parked.place.offset, parked.reason) for parked in bench.lot.parked] == [
        (1, "refused-by-store"),
        (4, "refused-by-store"),
    ]
    assert await bench.next_offset() == 7


async def test_a_record_on_another_partition_than_its_keys_is_parked_with_the_cure() -> None:
    stray = record(0, "stray")
    partitions = next(n for n in range(2, 9) if partition_of(stray.key or b"", n) != 0)
    bench = Bench()
    bench.folding = Folding(views, bench.sink, bench.lot, bench.ids, {"views": partitions}, NoDecisions())
    await bench.fold(stray)
    assert bench.lot.parked[0].reason == "wrong-partition"
    assert "partitioner=murmur2" in bench.lot.parked[0].detail


async def test_a_key_of_any_length_is_poison_and_no_more() -> None:
    bench = Bench()
    await bench.fold(record(0, "a")._replace(key=b"k" * 1_000_000), record(1, "b"))
    assert bench.counted == ["b"]
    assert bench.lot.parked[0].reason == "wrong-key"
    assert len(bench.lot.parked[0].detail) <= 1_000


async def test_a_batch_judged_twice_counts_the_same() -> None:
    """As after a lost answer: the seen ids know its views already."""
    bench, again = Bench(), Bench()
    again.ids = bench.ids
    again.folding = Folding(views, again.sink, again.lot, bench.ids, PARTITIONS, NoDecisions())
    records = [record(0, "a"), record(1, "a"), record(2, "b")]
    await bench.fold(*records)
    await again.fold(*records)
    assert bench.counted == again.counted == ["a", "b"]


async def test_the_seen_ids_stand_where_the_batch_ended_whatever_it_held() -> None:
    bench = Bench()
    await bench.fold(record(0, "a"), record(1, "b")._replace(value=None))
    assert bench.ids.seen.judged_to == 2


async def test_views_that_do_not_count_are_kept_with_the_reason() -> None:
    bench = Bench()
    ahead = encode(viewed("early", "film", at=NOW + timedelta(hours=1)), event_id="early", source="/tests")
    await bench.fold(record(0, "a"), record(1, "a"), kept(ahead, partition=0, offset=2, timestamp=AT_MS))
    refused = [
        (row["view_id"], row["reason"], row["earlier_offset"], row["ahead_seconds"])
        for row in bench.sink.rows("refused_views")
    ]
    assert refused == [("a", "duplicate", 0, None), ("early", "future", None, 3_600.0)]


films = st.sampled_from(["heat", "ran", "alien"])


@pytest.mark.parametrize("projection", [views, statistics, leaderboard])
@given(some=st.lists(st.tuples(films, st.integers(0, 200)), max_size=30), cuts=st.lists(st.integers(1, 9), min_size=1))
def test_a_fold_means_the_same_however_the_log_is_cut(
    projection: Projection, some: list[tuple[str, int]], cuts: list[int]
) -> None:
    events = [viewed(f"view-{i}", film, at=NOW + timedelta(minutes=minutes)) for i, (film, minutes) in enumerate(some)]
    decoded = recorded(events)
    one_by_one, in_batches = MemorySink(projection), MemorySink(projection)
    for item in decoded:
        for change in projection.fold([item]):
            one_by_one.write(change)
    cuts_for_ever, first = itertools.cycle(cuts), 0
    while first < len(decoded):
        following = first + next(cuts_for_ever)
        for change in projection.fold(decoded[first:following]):
            in_batches.write(change)
        first = following
    for table in ("views", "hourly", "daily"):
        assert in_batches.rows(table) == one_by_one.rows(table)
