"""The log folded in memory, up to a moment or up to given places: what an answer about the past rests on, and what a store is proven by."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from agents.folding import Judged, judge
from agents.handover import Partition
from agents.log_reader import LogReader, OpenLog
from agents.reading import read_records
from agents.seen import SeenIdsOfWorker
from compose.log import BROKERS_CLOCKS
from projections.changes import Change
from projections.counting import CLOCK_SKEW
from projections.projection import Projection
from schemas.log import EPOCH, MILLISECOND, Place
from schemas.streams import Streams


class Span(NamedTuple):
    """A stretch of one partition: [from_offset, to_offset)."""

    from_offset: int
    to_offset: int


class Replay:
    """Reads this system's log into memory. Every method raises StoreUnavailable when the log cannot be read."""

    def __init__(self, open_log: OpenLog, streams: Streams) -> None:
        self._open_log = open_log
        self._partitions = {name: topic.partitions for name, topic in streams.topics.items()}
        self._once_within = {name: topic.once_within for name, topic in streams.topics.items() if topic.once_within}
        self._seen = SeenIdsOfWorker(self._once_within, self._partitions, open_log)

    async def spans_until(
        self, topics: Iterable[str], moment: datetime, *, occurred_from: datetime | None = None
    ) -> dict[Partition, Span]:
        """For each partition a stretch that holds all that was recorded by `moment`, and perhaps some that was not.

        With `occurred_from` it may leave out views that occurred before.
        """
        spans = {}
        for topic in topics:
            since = occurred_from if topic in self._once_within else None
            for number in range(self._partitions[topic]):
                partition = Partition(topic, number)
                async with self._open_log(partition) as log:
                    spans[partition] = await self._span_until(log, moment, since)
        return spans

    async def spans_to(
        self, places: Iterable[Place], *, occurred_from: datetime | None = None
    ) -> dict[Partition, Span]:
        """What lies before each of `places`. With `occurred_from` it may leave out views that occurred before."""
        spans = {}
        for topic, number, offset in places:
            partition = Partition(topic, number)
            since = occurred_from if topic in self._once_within else None
            async with self._open_log(partition) as log:
                spans[partition] = Span(await _offset_since(log, since), offset)
        return spans

    async def _span_until(self, log: LogReader, moment: datetime, occurred_from: datetime | None) -> Span:
        from_offset = await _offset_since(log, occurred_from)
        to_offset = await log.offset_at((moment + BROKERS_CLOCKS - EPOCH) // MILLISECOND + 1)
        # What was copied here from an older topic was recorded before it was appended.
        end = await log.end()
        async for records in log.read(to_offset, end):
            read = read_records(records, log.partition, self._partitions[log.partition.topic])
            appended_at_ms = {record.offset: record.timestamp for record in records}
            places = [item.recorded for item in read.decoded]
            own = [r.place.offset for r in places if r.recorded_at_ms >= appended_at_ms[r.place.offset]]
            if own:
                return Span(from_offset, own[0])
        return Span(from_offset, end)

    async def fold(
        self,
        projection: Projection,
        spans: Mapping[Partition, Span],
        write: Callable[[Change], None],
        *,
        recorded_by: datetime | None = None,
    ) -> None:
        """Hand `write` what the records of `spans` mean to `projection`; only of those that were `recorded_by` then, where it is given.

        Which views count is judged as a worker judges them, and what a worker parks is passed over.
        """
        until_ms = None if recorded_by is None else (recorded_by - EPOCH) // MILLISECOND
        for partition, (from_offset, to_offset) in spans.items():
            if partition.topic not in projection.topics or from_offset >= to_offset:
                continue
            judges = projection.counts_once and partition.topic in self._once_within
            seen = await self._seen.window(projection.name, partition, from_offset) if judges else None
            async with self._open_log(partition) as log:
                async for records in log.read(from_offset, to_offset):
                    decoded = read_records(records, partition, self._partitions[partition.topic]).decoded
                    counted, refused = judge(seen, decoded) if seen is not None else Judged(decoded, [])
                    if until_ms is not None:
                        counted = [item for item in counted if item.recorded.recorded_at_ms <= until_ms]
                        refused = [item for item in refused if item.recorded.recorded_at_ms <= until_ms]
                    for change in projection.fold(counted, refused):
                        write(change)
            self._seen.release(projection.name, partition)


async def _offset_since(log: LogReader, occurred_from: datetime | None) -> int:
    """The first offset of a view that may have occurred then or later."""
    if occurred_from is None:
        return 0
    # A view that counts was recorded a minute before it occurred, at the earliest.
    return await log.offset_at((occurred_from - CLOCK_SKEW - EPOCH) // MILLISECOND)
