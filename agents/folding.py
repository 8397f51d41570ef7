"""One batch: decode, judge, fold, apply."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import structlog

from agents.aside import LONG, aside, is_nothing_aside, thinking
from agents.deciding import waiting
from agents.decision_folding import DecisionFolding, Marks, judges
from agents.decisions import HOME, DecisionsSource
from agents.handover import Batch, Partition
from agents.limits import halting
from agents.metrics import EVENTS_FOLDED, RECORDS_PARKED, SINK_APPLY_SECONDS, count_refused, timed
from agents.parking import AWAITS_DECISION, PATIENT, NotYet, Parked, Parking, Undecided
from agents.reading import Read, read_records
from projections.changes import Change
from projections.counting import SeenIds
from projections.projection import Projection, Refused, refusing
from projections.sinks.sink import ChangeRefused, CheckpointMoved, Sink, Step
from schemas.columns import Events
from schemas.decoded import Decoded
from schemas.envelope import id_of
from schemas.events import VideoViewed, ViewRetried
from schemas.log import Place
from schemas.records import Record
from schemas.streams import DECISIONS, streams

logger = structlog.get_logger(__name__)

PassedOver = Callable[[Partition, int], Awaitable[Collection[int]]]
"""The offsets of a partition, before a given one, whose records were not folded at their places, and took no id there."""


class SeenIdsSource(Protocol):
    """Hands out the seen ids of a partition, able to judge from `from_offset` on."""

    async def window(
        self, projection: str, partition: Partition, from_offset: int, passed_over: PassedOver
    ) -> SeenIds: ...

    def passed(self, projection: str, partition: Partition) -> frozenset[int]: ...

    def look_again(self, projection: str, partition: Partition) -> None: ...


class Judged(NamedTuple):
    """What reaches the fold, and the views that do not count."""

    counted: Sequence[Decoded]
    refused: Sequence[Refused]


class Stretch(NamedTuple):
    """The part of a batch in [from_offset, next_offset), judged; and what of it is not folded now."""

    partition: Partition
    from_offset: int
    next_offset: int
    judged: Judged
    parked: Sequence[Parked]

    @property
    def at(self) -> Place:
        return Place(*self.partition, self.from_offset)

    @property
    def event_offsets(self) -> list[int]:
        return sorted(item.recorded.place.offset for items in self.judged for item in items)

    def between(self, from_offset: int, next_offset: int) -> "Stretch":
        """The part of it in [from_offset, next_offset)."""

        def lies_there(item: Decoded | Refused) -> bool:
            return from_offset <= item.recorded.place.offset < next_offset

        judged = Judged([*filter(lies_there, self.judged.counted)], [*filter(lies_there, self.judged.refused)])
        parked = [one for one in self.parked if from_offset <= one.place.offset < next_offset]
        return Stretch(self.partition, from_offset, next_offset, judged, parked)


class Folding:
    """Folds the batches of one projection into its sink. `partitions` gives each topic's partition count."""

    def __init__(
        self,
        projection: Projection,
        sink: Sink,
        parking: Parking,
        seen: SeenIdsSource,
        partitions: dict[str, int],
        decisions: DecisionsSource,
    ) -> None:
        self._projection = projection
        self._sink = sink
        self._parking = parking
        self._seen = seen
        self._partitions = partitions
        self._decisions = decisions
        self._deciding = DecisionFolding(projection, sink, parking, decisions, partitions)
        self._settled: dict[Partition, int] = {}  # the epoch in which a partition was begun
        self._holds_back: dict[Partition, bool] = {}

    async def fold(self, batch: Batch) -> None:
        """Decode, judge, fold and apply `batch`.

        Raises StoreUnavailable, CheckpointMoved, NotYet or Halted, perhaps with its beginning applied.
        """
        try:
            await self._settle(batch)
            if batch.partition.topic == DECISIONS:
                await self._deciding.fold(batch)
            else:
                await self._fold_events(batch)
        except NotYet as waits:
            if waits.moves is not None:
                newest = await self._sink.newest_step(*waits.moves)
                await self._parking.settle(Place(*waits.moves, newest.next_offset), newest)
            raise
        except BaseException:
            # Perhaps between a step and what it wrote down: whoever comes next settles that first.
            self._settled.pop(batch.partition, None)
            raise

    async def _fold_events(self, batch: Batch) -> None:
        partition = batch.partition
        decided = set(self._decisions.decided(self._projection.name, partition, batch.from_offset, batch.next_offset))
        if decided:
            self._seen.look_again(self._projection.full_name, partition)
        read = await thinking(len(batch.records), self._read, batch, decided)
        if partition.topic == ViewRetried.topic and ViewRetried.type in Events.of(read.decoded).types:
            await self._fold_around_marks(batch, await self._deciding.marks(batch, read.decoded))
            return
        judged = await self._judged(batch, read.decoded)
        EVENTS_FOLDED.labels(self._projection.name, partition.topic).inc(len(judged.counted))
        count_refused(self._projection.name, (item.verdict for item in judged.refused))
        stretch = Stretch(partition, batch.from_offset, batch.next_offset, judged, read.poison)
        await self._apply(stretch, batch.records)

    async def _fold_around_marks(self, batch: Batch, marks: Marks) -> None:
        """Marks in a row are a batch of their own: what comes of them decides how the next views are judged."""

        from_offset = batch.from_offset
        for are_marks, group in groupby(batch.records, lambda record: record.offset in marks.at):
            records = list(group)
            stretch = batch.between(from_offset, records[-1].offset + 1)
            if are_marks:
                await self._deciding.fold_marks(stretch, marks)
            else:
                await self._fold_events(stretch)
            from_offset = stretch.next_offset
        if from_offset < batch.next_offset:
            await self._fold_events(batch.between(from_offset, batch.next_offset))

    async def _settle(self, batch: Batch) -> None:
        """Once a partition is begun: finish what whoever had it before has left, and hear of every decision so far."""
        partition = batch.partition
        if self._settled.get(partition) == batch.epoch:
            return
        at = Place(*partition, batch.from_offset)
        if self._is_ordered(partition):
            # What was decided in an earlier life of the store is open again, and holds back what lies behind it.
            await self._taken_back(Place(*HOME, (await self._sink.newest_step(*HOME)).next_offset))
        await self._parking.settle(at, await self._taken_back(at))
        await self._decisions.refresh()
        # Whoever had it before may have parked what a window of ours has judged.
        self._seen.look_again(self._projection.full_name, partition)
        self._holds_back[partition] = self._is_ordered(partition) and await self._parking.holds_back(partition)
        self._settled[partition] = batch.epoch

    async def _taken_back(self, at: Place) -> Step:
        """The step that brought the checkpoint to `at`. What was parked or decided behind it was so in an earlier life of the store, and
        holds no more. Raises CheckpointMoved."""
        # Before the checkpoint: what was parked then lay before it.
        beyond = await self._parking.beyond(at)
        newest = await self._sink.newest_step(at.topic, at.partition)
        if newest.next_offset != at.offset:
            raise CheckpointMoved(self._projection.full_name, at)
        await self._parking.take_back(beyond)
        return newest

    def _is_ordered(self, partition: Partition) -> bool:
        return partition.topic != DECISIONS and streams().topics[partition.topic].ordered

    def _read(self, batch: Batch, decided: Collection[int]) -> Read:
        """The batch's records. What was `decided` about before it was reached, as when the log is folded anew, is passed over."""
        partition = batch.partition
        read = read_records(batch.records, partition, self._partitions[partition.topic])
        if not decided:
            return read
        awaiting = [
            Parked(
                Place(*partition, record.offset),
                record,
                AWAITS_DECISION,
                "it is folded, or not, where its decision lies",
            )
            for record in batch.records
            if record.offset in decided
        ]
        poison = [one for one in read.poison if one.place.offset not in decided]
        return Read(Events.of(read.decoded).besides(decided), poison + awaiting)

    async def _passed_over(self, partition: Partition, to_offset: int) -> Collection[int]:
        parked = await self._parking.offsets(partition, to_offset)
        return {*parked, *self._decisions.decided(self._projection.name, partition, 0, to_offset)}

    async def _judged(self, batch: Batch, decoded: Sequence[Decoded]) -> Judged:
        """Of views only those that count reach a projection that counts."""
        if not self._projection.counts_once or VideoViewed.type not in Events.of(decoded).types:
            return Judged(decoded, [])
        name, partition = self._projection.full_name, batch.partition
        while True:
            try:
                seen = await self._seen.window(name, partition, batch.from_offset, self._passed_over)
                if not self._seen.passed(name, partition).isdisjoint(Events.of(decoded).offsets.tolist()):
                    # Parked by who has folded further meanwhile: judged here it would take its id.
                    raise CheckpointMoved(name, Place(*partition, batch.from_offset))
                # Several projections share the window, which takes one batch after the other.
                if len(decoded) < LONG and is_nothing_aside():
                    judged = judge(seen, decoded)
                else:
                    judged = await aside(judge, seen, decoded)
                break
            except LookupError:
                # Another projection took it so far ahead meanwhile that it answers no more: one of our own is next.
                logger.debug("the seen ids went ahead", projection=name, partition=str(partition))
        # What was no view, or nothing at all, is behind it too: the next batch finds no gap to read again.
        seen.judged_to = max(seen.judged_to, batch.next_offset)
        return judged

    async def _apply(self, stretch: Stretch, records: Sequence[Record]) -> None:
        """Apply a stretch. Where the store refuses a change, the event behind it is found and parked."""
        if stretch.parked or self._holds_back[stretch.partition]:
            await self._apply_parking(stretch, records)
            return
        try:
            await self._write(stretch)
        except ChangeRefused as refused:
            await self._apply_parts(stretch, records, refused)

    async def _apply_parking(self, stretch: Stretch, records: Sequence[Record]) -> None:
        """Apply a stretch some records of which are not folded now, or may have to wait for others that were not."""
        await self._parking.meet([one for one in stretch.parked if one.reason not in PATIENT])
        ordered, name = self._is_ordered(stretch.partition), self._projection.name
        concerned = None if ordered else [one.place.offset for one in stretch.parked]
        async with self._parking.turn(stretch.partition, stretch.at, concerned) as turn:
            undecided = await turn.undecided()
            if ordered:
                stretch = held_back(stretch, undecided, records)
            decided = set(self._decisions.decided(name, stretch.partition, 0, stretch.from_offset))
            open_ones = [one for one in undecided if one.offset not in decided]
            halted = halting(name, stretch.parked, stretch.event_offsets, open_ones)
            if halted is not None:
                stretch = stretch.between(stretch.from_offset, halted[0])
            step = await turn.write_down(stretch.parked) if stretch.parked else None
        if stretch.next_offset > stretch.from_offset:
            try:
                await self._write(stretch, step)
            except ChangeRefused as refused:
                if step is not None:
                    await self._parking.give_up([step])
                await self._apply_parts(stretch, records, refused)
            else:
                await self._carry_out(step, stretch.parked)
        self._holds_back[stretch.partition] = ordered and bool(undecided or stretch.parked)
        if halted is not None:
            raise halted[1]

    async def _write(self, stretch: Stretch, step: str | None = None) -> None:
        changes, offsets = await thinking(len(stretch.judged.counted), self._changes, stretch.judged)
        with timed(SINK_APPLY_SECONDS, self._projection.name):
            await self._sink.apply(
                changes, expected=stretch.at, next_offset=stretch.next_offset, offsets=offsets, step=step
            )

    def _changes(self, judged: Judged) -> tuple[list[Change], list[int] | None]:
        """What the events mean; for a sink that needs to know, event by event, with the offset behind each change."""
        if not self._sink.needs_offsets:
            return list(self._projection.fold(judged.counted, judged.refused)), None
        changes: list[Change] = []
        offsets: list[int] = []
        alone = [([item], ()) for item in judged.counted] + [((), [item]) for item in judged.refused]
        for counted, refused in sorted(alone, key=lambda one: [*one[0], *one[1]][0].recorded.place.offset):
            meant = list(self._projection.fold(counted, refused))
            changes += meant
            offsets += [[*counted, *refused][0].recorded.place.offset] * len(meant)
        return changes, offsets

    async def _apply_parts(self, stretch: Stretch, records: Sequence[Record], why: ChangeRefused) -> None:
        offsets = stretch.event_offsets
        if not offsets:
            raise why
        if len(offsets) == 1:
            record = next(record for record in records if record.offset == offsets[0])
            refused = Parked(Place(*stretch.partition, offsets[0]), record, "refused-by-store", str(why))
            parked = sorted([*stretch.parked, refused], key=lambda one: one.place.offset)
            await self._apply(stretch._replace(judged=Judged([], []), parked=parked), records)
            if judges(self._projection, stretch.partition):
                # The view took its id when it was judged, and what comes after was judged by that: it is read again.
                raise CheckpointMoved(self._projection.full_name, stretch.at)
            return
        middle = offsets[len(offsets) // 2]
        await self._apply(stretch.between(stretch.from_offset, middle), records)
        await self._apply(stretch.between(middle, stretch.next_offset), records)

    async def _carry_out(self, step: str | None, parked: Sequence[Parked]) -> None:
        if step is None:
            return
        await self._parking.carry_out(step)
        for one in parked:
            RECORDS_PARKED.labels(self._projection.name, one.reason).inc()
            logger.warning(
                "parked a record that cannot be folded",
                projection=self._projection.name,
                place=str(one.place),
                event_id=id_of(one.record),
                reason=one.reason,
                detail=one.detail,
            )


def held_back(stretch: Stretch, undecided: Sequence[Undecided], records: Sequence[Record]) -> Stretch:
    """The stretch as it is folded where order matters: an event whose key has a parked record before it waits behind that one."""
    behind: dict[bytes, Place] = {}
    for one in undecided:
        if one.key is not None:
            behind.setdefault(one.key, Place(*stretch.partition, one.offset))
    by_offset = {record.offset: record for record in records}
    parked = {one.place.offset: one for one in stretch.parked}
    counted: list[Decoded] = []
    events = {item.recorded.place.offset: item for item in stretch.judged.counted}
    for offset in sorted([*parked, *events]):
        record = by_offset[offset]
        if offset in events:
            first = behind.get(events[offset].event.key.encode())
            if first is None:
                counted.append(events[offset])
                continue
            parked[offset] = waiting(Parked(Place(*stretch.partition, offset), record, "", ""), first)
        elif record.key is not None:
            behind.setdefault(record.key, Place(*stretch.partition, offset))
    in_order = sorted(parked.values(), key=lambda one: one.place.offset)
    return stretch._replace(judged=stretch.judged._replace(counted=counted), parked=in_order)


def judge(seen: SeenIds, decoded: Sequence[Decoded]) -> Judged:
    """What reaches a fold that counts: the views that do, and whatever is no view."""
    events = Events.of(decoded)
    return Judged(*refusing(events, seen.refusals(events)))
