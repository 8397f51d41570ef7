"""The operators' decisions, as the log has them."""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, Self, TypeGuard

from agents.handover import Partition
from agents.log_reader import OpenLog, log_of
from agents.parking import WAITS_BEHIND
from agents.reading import read_records
from compose.settings import Settings
from projections.counting import CLOCK_SKEW
from schemas.envelope import decode
from schemas.errors import Poison
from schemas.events import Event, RecordDiscarded, RecordRetried, RecordRetriedInPlace, VideoViewed, ViewRetried
from schemas.log import MILLISECOND, Place, Recorded
from schemas.streams import DECISIONS, Streams

HOME = Partition(DECISIONS, 0)
NOTHING: Sequence[int] = ()


class Ruling(NamedTuple):
    """A decision at its place in the topic of decisions, or at its mark among the views.

    `at` is its place among the decisions, `mark` the offset of its mark where it is known. A view is judged by the log before `judged_to`.
    """

    decision: RecordRetried | RecordDiscarded | ViewRetried
    at: int
    recorded_at_ms: int
    judged_to: int
    mark: int | None = None

    @classmethod
    def of(cls, event: RecordRetried | RecordDiscarded | ViewRetried, recorded: Recorded) -> Self:
        """What `event` says, recorded there."""
        offset, at_ms = recorded.place.offset, recorded.recorded_at_ms
        if isinstance(event, ViewRetried):
            return cls(event, event.decision, at_ms, judged_to=offset, mark=offset)
        return cls(event, offset, at_ms, event.judged_to if isinstance(event, RecordRetried) else 0)

    @property
    def place(self) -> Place:
        """That of the record."""
        return Place.of(self.decision.record)

    @property
    def is_retry(self) -> bool:
        return not isinstance(self.decision, RecordDiscarded)

    @property
    def is_marked(self) -> bool:
        """Whether it is carried out at its mark, and not among the decisions."""
        return self.mark is not None or isinstance(self.decision, RecordRetriedInPlace)

    def discards(self, place: Place) -> bool:
        """Whether the record at `place` is the one that it is about, and is never folded."""
        return not self.is_retry and self.decision.record == place.id


Heard = Callable[[str], Sequence[Ruling]]
"""Tells every decision about a record."""


class Sighting(NamedTuple):
    """A record that carries the id of a retried view, and would take it."""

    offset: int
    recorded_at_ms: int


class DecisionsSource(Protocol):
    """Which records were decided about, so that whoever folds the log anew passes them over at their places."""

    async def refresh(self, *, to_offset: int | None = None) -> None: ...

    def newest_of(self, projection: str, partition: Partition) -> Mapping[int, Ruling]: ...

    def decided(self, projection: str, partition: Partition, from_offset: int, to_offset: int) -> Sequence[int]: ...

    def is_superseded(self, projection: str, record: str, at: int) -> bool: ...

    async def sightings(
        self, partition: Partition, views: Mapping[str, Sequence[int]], within: timedelta, to_offset: int
    ) -> Mapping[str, Sequence[Sighting]]: ...

    async def record(self, place: Place) -> Any: ...


class DecisionsOfWorker:
    """Every decision up to the end of the log, read once for all that a worker folds."""

    def __init__(self, open_log: OpenLog, partitions: Mapping[str, int]) -> None:
        self._open_log = open_log
        self._partitions = partitions
        self._decided: dict[tuple[str, Partition], list[int]] = defaultdict(list)
        self._newest: dict[tuple[str, str], int] = {}
        self._about: dict[str, list[Ruling]] = defaultdict(list)
        self._of_partition: dict[tuple[str, Partition], dict[int, Ruling]] = defaultdict(dict)
        self._rulings: dict[int, Ruling] = {}
        self._read_to = 0
        self._reading = asyncio.Lock()
        self._begun = 0

    async def refresh(self, *, to_offset: int | None = None) -> None:
        """Returns when every decision is known that was in the log before, or those before `to_offset`. Raises StoreUnavailable."""
        if to_offset is not None and self._read_to >= to_offset:
            return
        asked = self._begun
        async with self._reading:
            # Who waited here while another began to read is served by what that one found.
            if self._begun > asked:
                return
            self._begun += 1
            async with self._open_log(HOME) as log:
                end = await log.end()
                async for records in log.read(self._read_to, end):
                    for record in records:
                        self._learn(record)
                self._read_to = max(self._read_to, end)

    def decided(self, projection: str, partition: Partition, from_offset: int, to_offset: int) -> Sequence[int]:
        """The offsets in [from_offset, to_offset) of the records that were parked by this projection, as is known from the decisions about
        them; in order."""
        offsets = self._decided.get((projection, partition), NOTHING)
        return offsets[bisect_left(offsets, from_offset) : bisect_left(offsets, to_offset)]

    def about(self, record: str) -> Sequence[Ruling]:
        """Every decision about the record, the oldest first."""
        return self._about.get(record, ())

    def at(self, offset: int) -> Ruling | None:
        """The decision that lies there."""
        return self._rulings.get(offset)

    def newest_of(self, projection: str, partition: Partition) -> Mapping[int, Ruling]:
        """By its offset each record of the partition that was decided about for the projection, with the newest decision."""
        return self._of_partition.get((projection, partition), {})

    def is_superseded(self, projection: str, record: str, at: int) -> bool:
        """Whether a later decision about the record is known: nobody decides again about what was folded, so this one changed nothing when
        it was new, and must change nothing when the log is folded anew by a release that could fold the record."""
        return self._newest.get((projection, record), at) > at

    async def sightings(
        self, partition: Partition, views: Mapping[str, Sequence[int]], within: timedelta, to_offset: int
    ) -> Mapping[str, Sequence[Sighting]]:
        """What the log before `to_offset` has of these views' ids, no further than `within` from the times given, in milliseconds.

        Views from the future are left out, as they take no id. Raises StoreUnavailable.
        """
        found: dict[str, list[Sighting]] = defaultdict(list)
        times = {time for of_view in views.values() for time in of_view}
        if not times:
            return found
        async with self._open_log(partition) as log:
            for first_ms, last_ms in _spans(times, within // MILLISECOND):
                from_offset = await log.offset_at(first_ms)
                end = min(to_offset, await log.offset_at(last_ms + 1))
                async for records in log.read(from_offset, end):
                    for event, recorded in read_records(records, partition, self._partitions[partition.topic]).decoded:
                        if event.type == VideoViewed.type and event.key in views and not ahead(event, recorded):
                            found[event.key].append(Sighting(recorded.place.offset, recorded.recorded_at_ms))
        return found

    async def record(self, place: Place) -> Any:
        """What the log has there. Raises StoreUnavailable, LookupError where it has nothing any more."""
        async with self._open_log(Partition(*place[:2])) as log:
            async for record, *_ in log.read(place.offset, place.offset + 1):
                return record
        raise LookupError(f"the log has nothing at {place}")

    def _learn(self, record: Any) -> None:
        try:
            decision, recorded = decode(record, DECISIONS)
        except Poison:
            return
        if is_decision(decision):
            ruling = Ruling.of(decision, recorded)
            place = ruling.place
            self._about[decision.record].append(ruling)
            self._rulings[record.offset] = ruling
            for projection in decision.projections:
                self._of_partition[projection, Partition(*place[:2])][place.offset] = ruling
                is_first = (projection, decision.record) not in self._newest
                self._newest[projection, decision.record] = record.offset
                # What only waited had nothing wrong with it: at its place it is folded, or waits again.
                if not is_first or decision.parked_for == WAITS_BEHIND:
                    continue
                offsets = self._decided[projection, Partition(place.topic, place.partition)]
                at = bisect_left(offsets, place.offset)
                if at == len(offsets) or offsets[at] != place.offset:
                    offsets.insert(at, place.offset)


def _spans(times: Iterable[int], within: int) -> list[tuple[int, int]]:
    """What lies within so much of any of `times`, as spans that do not touch."""
    spans: list[tuple[int, int]] = []
    for time in sorted(times):
        first = spans.pop()[0] if spans and spans[-1][1] + 1 >= time - within else time - within
        spans.append((first, time + within))
    return spans


def ahead(view: Event, recorded: Recorded) -> float:
    """By how many seconds a view is from the future; 0.0 for one that a clock's skew explains."""
    seconds = view.occurred_at.timestamp() - recorded.recorded_at_ms / 1_000
    return seconds if seconds > CLOCK_SKEW.total_seconds() else 0.0


def is_decision(event: Any) -> TypeGuard[RecordRetried | RecordDiscarded]:
    return isinstance(event, RecordRetried | RecordDiscarded)


def decisions_of(settings: Settings, streams: Streams) -> DecisionsOfWorker:
    """None heard yet, to be read from this system's log."""
    return DecisionsOfWorker(log_of(settings), {name: topic.partitions for name, topic in streams.topics.items()})
