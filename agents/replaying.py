"""The log folded in memory, up to a moment or up to given places: what an answer about the past rests on, and what a store is proven by."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any, NamedTuple

from agents.deciding import FOLDED, Deciding, all_count, decided, judge_by, took_its_id
from agents.decisions import HOME, DecisionsOfWorker, Ruling
from agents.folding import Judged, judge
from agents.handover import Partition
from agents.left import END_OF_LOG, Fates, Horizon, InOrder, Left, fates_by, fates_in_log, folded
from agents.log_reader import LogReader, OpenLog
from agents.parking import Parked
from agents.reading import Read, read_records
from agents.seen import window_start
from compose.log import BROKERS_CLOCKS
from projections.changes import Change
from projections.counting import CLOCK_SKEW, SeenIds
from projections.projection import Projection
from schemas.columns import Events
from schemas.decoded import Decoded
from schemas.events import ViewRetried
from schemas.log import Place, milliseconds_of
from schemas.records import Record
from schemas.streams import Streams

LOOKED_AT_ONCE = 200  # records, for one that was appended here first


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
        self._ordered = {name: topic.ordered for name, topic in streams.topics.items()}
        self._decisions = DecisionsOfWorker(open_log, self._partitions)

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
        to_offset = await log.offset_at(milliseconds_of(moment + BROKERS_CLOCKS) + 1)
        # What was copied here from an older topic was recorded before it was appended.
        end = await log.end()
        async for records in log.read(to_offset, end):
            # A few at a time: the first one is hardly ever a copy.
            for first in range(0, len(records), LOOKED_AT_ONCE):
                some = records[first : first + LOOKED_AT_ONCE]
                appended_at_ms = {record.offset: record.timestamp for record in some}
                places = [item.recorded for item in self._read(some, log.partition).decoded]
                own = (r.place.offset for r in places if r.recorded_at_ms >= appended_at_ms[r.place.offset])
                if (found := next(own, None)) is not None:
                    return Span(from_offset, found)
        return Span(from_offset, end)

    async def fold(
        self,
        projection: Projection,
        spans: Mapping[Partition, Span],
        write: Callable[[Change], None],
        *,
        recorded_by: datetime | None = None,
        left: Left | None = None,
    ) -> None:
        """Hand `write` what the records of `spans` mean to `projection`; only of those that were `recorded_by` then, where it is given.

        Which views count is judged as a worker judges them. What a worker parks is passed over, and folded by the decision that it was left
        to: one recorded by then, and within the span of the decisions, where there is one. What a version has `left` is known from it; else
        all was left that was ever decided about, and what cannot be read.
        """
        await self._decisions.refresh()
        until_ms = None if recorded_by is None else milliseconds_of(recorded_by)
        horizon = Horizon(spans[HOME].to_offset if HOME in spans else END_OF_LOG, until_ms)
        for partition, span in spans.items():
            if partition.topic not in projection.topics or span.from_offset >= span.to_offset:
                continue
            if left is None:
                fates = fates_in_log(self._decisions, projection, partition, horizon)
            else:
                fates = fates_by(left.get(partition, {}), self._decisions, horizon)
            if projection.counts_once and partition.topic in self._once_within:
                batches = self._counted(projection, partition, span, fates, horizon)
            elif self._ordered[partition.topic] and left is None:
                batches = self._in_order(projection, partition, span, horizon)
            else:
                batches = self._in_place(partition, span, fates)
            async for counted, refused in batches:
                if until_ms is not None:
                    counted = [item for item in counted if item.recorded.recorded_at_ms <= until_ms]
                    refused = [item for item in refused if item.recorded.recorded_at_ms <= until_ms]
                for change in projection.fold(counted, refused):
                    write(change)

    async def _in_place(self, partition: Partition, span: Span, fates: Fates) -> AsyncIterator[Judged]:
        async with self._open_log(partition) as log:
            async for records in log.read(*span):
                yield Judged(folded(partition, self._read(records, partition), fates), [])

    async def _in_order(
        self, projection: Projection, partition: Partition, span: Span, horizon: Horizon
    ) -> AsyncIterator[Judged]:
        """Events at their places, then what was left, and what waited behind it, by one decision after the other."""
        name = projection.name
        in_order = InOrder(partition, self._decisions.decided(name, partition, 0, END_OF_LOG))
        async with self._open_log(partition) as log:
            async for records in log.read(*span):
                yield Judged(in_order.folded(records, self._read(records, partition)), [])
        deciding = Deciding(in_order.rows, ordered=True, read=self._read_one, judge=all_count)
        newest = self._decisions.newest_of(name, partition).values()
        for ruling in sorted(filter(horizon.knows, newest), key=lambda ruling: ruling.at):
            deciding.decide(ruling)
        yield Judged(deciding.counted, [])

    async def _counted(
        self, projection: Projection, partition: Partition, span: Span, fates: Fates, horizon: Horizon
    ) -> AsyncIterator[Judged]:
        """Views judged at their places, and those that were left at the marks of their retries; where those have none, after all else."""
        within = self._once_within[partition.topic]
        async with self._open_log(partition) as log:
            start = await window_start(log, span.from_offset, within)
            seen = SeenIds(within, start_offset=start)
            # What lies before the span only tells which ids are known.
            for from_offset, to_offset in ((start, span.from_offset), span):
                async for records in log.read(from_offset, to_offset):
                    events = Events.of(self._read(records, partition).decoded).besides(fates)
                    async for judged in self._judged(seen, partition, events, fates, horizon):
                        if from_offset == span.from_offset:
                            yield judged
            by_decision = (ruling for ruling in fates.values() if ruling and ruling.is_retry and not ruling.is_marked)
            rulings = [ruling for ruling in by_decision if ruling.place.offset < span.to_offset]
            if rulings:
                deciding = await self._deciding(log, rulings, fates)
                for ruling in sorted(rulings, key=lambda ruling: ruling.at):
                    deciding.decide(ruling)
                yield Judged(deciding.counted, deciding.refused)

    async def _judged(
        self, seen: SeenIds, partition: Partition, events: Events[Any], fates: Fates, horizon: Horizon
    ) -> AsyncIterator[Judged]:
        """`events` in pieces: views up to a mark, what becomes of the view that is retried there, and so on."""
        marks: dict[int, Ruling | None] = {}
        for number, event in enumerate(events.each) if ViewRetried.type in events.types else ():
            if isinstance(event, ViewRetried):
                mark = Ruling.of(event, events[number].recorded)
                fate = fates.get(mark.place.offset)
                has_effect = fate is not None and fate.at == mark.at and horizon.knows(mark)
                marks[number] = mark if has_effect else None
        if rulings := [ruling for ruling in marks.values() if ruling is not None]:
            async with self._open_log(partition) as log:
                deciding = await self._deciding(log, rulings, fates)
        first = 0
        for number, ruling in marks.items():
            yield judge(seen, events[first:number])
            if ruling is not None:
                deciding.decide(ruling)
                yield Judged([*deciding.counted], [*deciding.refused])
                deciding.counted.clear()
                deciding.refused.clear()
                if took_its_id(deciding.rows[ruling.place.offset]):
                    seen.refusals(events[number : number + 1])
            first = number + 1
        yield judge(seen, events[first:])

    async def _deciding(self, log: LogReader, rulings: Sequence[Ruling], fates: Fates) -> Deciding:
        """For these retries of one partition. What else was left, and has one of their ids, is as its own retry left it."""
        rows = await self._rows(log, {ruling.place.offset for ruling in rulings})
        times: dict[str, list[int]] = defaultdict(list)
        for row in rows.values():
            if isinstance(found := self._read_one(row), Decoded):
                times[found.event.key].append(found.recorded.recorded_at_ms)
        within = self._once_within[log.partition.topic]
        judged_to = max(ruling.judged_to for ruling in rulings)
        sightings = await self._decisions.sightings(log.partition, times, within, judged_to)
        sighted = {one.offset for of_view in sightings.values() for one in of_view} & fates.keys() - rows.keys()
        for offset, row in (await self._rows(log, sighted)).items():
            fate = fates[offset]
            # Those that can be read are folded or duplicates by it, which is alike for a retry that has a mark.
            rows[offset] = decided(row, FOLDED, fate) if fate is not None and fate.is_retry else row
        return Deciding(rows.values(), ordered=False, read=self._read_one, judge=judge_by(sightings, within))

    async def _rows(self, log: LogReader, offsets: Set[int]) -> dict[int, Parked]:
        rows = {}
        for offset in sorted(offsets):
            async for record, *_ in log.read(offset, offset + 1):
                rows[offset] = Parked(Place(*log.partition, offset), record, "", "")
        return rows

    def _read_one(self, row: Parked) -> Decoded | Parked:
        read = self._read([row.record], Partition(*row.place[:2]))
        return read.decoded[0] if read.decoded else read.poison[0]

    def _read(self, records: Sequence[Record], partition: Partition) -> Read:
        return read_records(records, partition, self._partitions[partition.topic])


async def _offset_since(log: LogReader, occurred_from: datetime | None) -> int:
    """The first offset of a view that may have occurred then or later."""
    if occurred_from is None:
        return 0
    # A view that counts was recorded a minute before it occurred, at the earliest.
    return await log.offset_at(milliseconds_of(occurred_from - CLOCK_SKEW))
