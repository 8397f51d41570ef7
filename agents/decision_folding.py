"""Decisions, at their places or at their marks: what was parked is folded now, or never."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import structlog

from agents.deciding import WITHOUT_EFFECT, Deciding, Judge, all_count, decided, judge_by, took_its_id
from agents.decisions import HOME, DecisionsSource, Ruling, Sighting, is_decision
from agents.handover import Batch, Partition
from agents.metrics import EVENTS_FOLDED, count_refused
from agents.parking import NotYet, Parked, Parking
from agents.reading import read_records
from projections.projection import Projection
from projections.sinks.sink import ChangeRefused, Sink
from schemas.decoded import Decoded
from schemas.events import VideoViewed, ViewRetried
from schemas.log import Place, milliseconds_of
from schemas.streams import streams

MOST_AT_ONCE = 500  # decisions in a step
TAKES_NO_ID = "takes no id by this retry: it is still parked, or from the future, or was retried again"

Sightings = Mapping[str, Sequence[Sighting]]
"""By its id where a view lies."""

logger = structlog.get_logger(__name__)


class Run(NamedTuple):
    """Rulings about one partition, in [moves, next_offset) of the decisions; or, with the `marks` that lie there, of that partition itself.

    `strays` are records there that are no decisions.
    """

    partition: Partition | None
    moves: Place
    next_offset: int
    rulings: Sequence[Ruling]
    strays: Sequence[Parked]
    marks: Sequence["Mark"] = ()


class Mark(NamedTuple):
    """The retry that lies at a mark, and how the mark's record is written down where it takes no id."""

    ruling: Ruling
    without_effect: Parked

    @property
    def offset(self) -> int:
        return self.without_effect.place.offset


class Marks(NamedTuple):
    """Those of a batch, by their offsets, and where else the ids of their views lie."""

    at: Mapping[int, Mark]
    sightings: Sightings


class DecisionFolding:
    """Carries out decisions for one projection, each exactly once: its effect and the checkpoint behind it are one step of the sink."""

    def __init__(
        self,
        projection: Projection,
        sink: Sink,
        parking: Parking,
        decisions: DecisionsSource,
        partitions: Mapping[str, int],
    ) -> None:
        self._projection = projection
        self._sink = sink
        self._parking = parking
        self._decisions = decisions
        self._partitions = partitions

    async def fold(self, batch: Batch) -> None:
        """Raises CheckpointMoved, StoreUnavailable or NotYet, perhaps with the first decisions carried out."""
        for run in self._runs(batch):
            await self._fold_run(run)

    async def _fold_run(self, run: Run) -> None:
        try:
            await self._wait_for(run)
        except NotYet:
            if len(run.rulings) == 1:
                raise
            # Those that need not wait may be what the others wait for: a step that a dead worker has written down ends with them.
            for half in _halves(run):
                await self._fold_run(half)
        else:
            await self._carry_out(run, {})

    async def marks(self, batch: Batch, decoded: Iterable[Decoded]) -> Marks:
        """Those among `decoded`, which are of `batch`. Raises StoreUnavailable."""
        records = {record.offset: record for record in batch.records}
        marks: dict[int, Mark] = {}
        views: dict[str, list[int]] = defaultdict(list)
        for event, recorded in decoded:
            if isinstance(event, ViewRetried):
                ruling, record = Ruling.of(event, recorded), records[recorded.place.offset]
                row = Parked(recorded.place, record, "retry", f"{event.record} {TAKES_NO_ID}")
                marks[recorded.place.offset] = Mark(ruling, decided(row, WITHOUT_EFFECT, ruling))
                views[event.view_id].append(milliseconds_of(event.recorded_at))
        return Marks(marks, await self._sighted(batch.partition, views, batch.next_offset))

    async def fold_marks(self, batch: Batch, marks: Marks) -> None:
        """Carry out the retries at `marks` that lie in `batch`, which holds nothing else, where they bind this projection.

        Where a view takes its id neither at its mark nor at one before, the mark takes none: it is passed over as if it were parked.
        Raises CheckpointMoved, StoreUnavailable or NotYet, perhaps with the first carried out.
        """
        own = [marks.at[record.offset] for record in batch.records]
        await self._decisions.refresh(to_offset=max(mark.ruling.at for mark in own))
        bound = [mark for mark in own if self._is_bound_by(mark.ruling)]
        needed = {mark.offset: self._decisions_before(mark, batch.partition, marks.sightings) for mark in bound}
        # One that waits must not hold up another, which a decision that it waits for may need; nor may two be one step of a sink that
        # needs to know each change's offset.
        is_each_alone = self._sink.needs_offsets or any(needed.values())
        from_offset = batch.from_offset
        for group in [[mark] for mark in own] if is_each_alone else [own]:
            if wait_for := max((needed.get(mark.offset, 0) for mark in group), default=0):
                await self._wait_until(HOME, wait_for)
            next_offset = batch.next_offset if group[-1] is own[-1] else group[-1].offset + 1
            rulings = [mark.ruling for mark in group if mark.offset in needed]
            run = Run(batch.partition, Place(*batch.partition, from_offset), next_offset, rulings, [], group)
            await self._carry_out(run, {}, marks.sightings)
            from_offset = next_offset

    def _decisions_before(self, mark: Mark, partition: Partition, sightings: Sightings) -> int:
        """Up to which offset decisions have to be carried out before the view at `mark` is judged: a view that is retried by an earlier
        decision, without a mark, takes its id, or does not, before another with that id is judged."""
        newest = self._decisions.newest_of(self._projection.name, partition)
        assert isinstance(mark.ruling.decision, ViewRetried)
        with_its_id = {one.offset for one in sightings.get(mark.ruling.decision.view_id, ())}
        rulings = [newest[offset] for offset in with_its_id & newest.keys()]
        earlier = (one.at for one in rulings if one.is_retry and not one.is_marked and one.at < mark.ruling.at)
        return 1 + max(earlier, default=-1)

    async def _wait_until(self, partition: Partition, needed: int) -> None:
        """Until `partition` is folded so far, and what the steps there have parked is so. Raises NotYet."""
        newest = await self._sink.newest_step(*partition)
        if newest.next_offset < needed:
            name = self._projection.full_name
            raise NotYet(f"{name} is at {newest.next_offset:,} of {partition}, and a decision needs {needed:,}")
        if newest.name is not None:
            await self._parking.settle(Place(*partition, newest.next_offset), newest)

    def _runs(self, batch: Batch) -> Iterator[Run]:
        read = read_records(batch.records, batch.partition, 1)
        decisions = (Ruling.of(event, recorded) for event, recorded in read.decoded if is_decision(event))
        rulings = [one for one in decisions if one.place.topic in self._projection.reads]
        most = 1 if self._sink.needs_offsets else MOST_AT_ONCE
        # What is retried at a mark waits for those before it, and those behind it may wait for that: also where it binds others only.
        runs = [
            (partition, alike[first : first + most])
            for (partition, is_marked), group in groupby(rulings, key=lambda one: (one.place[:2], one.is_marked))
            for alike in ([] if is_marked else [[*filter(self._is_bound_by, group)]])
            for first in range(0, len(alike), most)
        ]
        starts = [run[0].at for _, run in runs[1:]] + [batch.next_offset]
        from_offset = batch.from_offset
        for (partition, run), next_offset in zip(runs or [(None, [])], starts, strict=True):
            strays = [one for one in read.poison if from_offset <= one.place.offset < next_offset]
            moves = Place(*HOME, from_offset)
            yield Run(Partition(*partition) if partition else None, moves, next_offset, run, strays)
            from_offset = next_offset

    def _is_bound_by(self, ruling: Ruling) -> bool:
        name, decision = self._projection.name, ruling.decision
        return name in decision.projections and not self._decisions.is_superseded(name, decision.record, ruling.at)

    async def _wait_for(self, run: Run) -> None:
        """A record that was decided about is first passed over at its place; and a view is judged once all is folded that may have taken
        its id. Until then its decision waits, however the log is read."""
        if run.partition is None:
            return
        needed = 1 + max(ruling.place.offset for ruling in run.rulings)
        if judges(self._projection, run.partition):
            needed = max(needed, _judged_to(run))
        try:
            await self._wait_until(run.partition, needed)
        except NotYet:
            await self._give_up_impossible(run.partition, run.moves)
            raise

    async def _give_up_impossible(self, partition: Partition, moves: Place) -> None:
        """What was written down by who found the partition folded further was so in an earlier life of the store, and would block it."""
        if highest := await self._parking.written_down(moves, partition):
            reached = (await self._sink.newest_step(*partition)).next_offset
            await self._parking.give_up([step for step, offset in highest.items() if offset >= reached])

    async def _carry_out(self, run: Run, refused: Mapping[Place, str], sightings: Sightings | None = None) -> None:
        """`refused` are the records that the store was found to refuse; `sightings` those of all views of the run, where they are known."""
        step, deciding = await self._write_down(run, refused, sightings)
        counted = deciding.counted if deciding else []
        changes = list(self._projection.fold(counted, deciding.refused if deciding else []))
        try:
            await self._sink.apply(
                changes,
                expected=run.moves,
                next_offset=run.next_offset,
                offsets=[_offset_of(run)] * len(changes),
                step=step,
            )
        except ChangeRefused as why:
            if step is not None:
                await self._parking.give_up([step])
            await self._carry_out_parts(run, refused, sightings, counted, why)
            return
        if step is not None:
            await self._parking.carry_out(step)
        if deciding is not None and run.partition is not None:
            EVENTS_FOLDED.labels(self._projection.name, run.partition.topic).inc(len(counted))
            count_refused(self._projection.name, (item.verdict for item in deciding.refused))
        for row in deciding.changed if deciding else []:
            logger.info(
                "carried out a decision",
                projection=self._projection.name,
                place=str(row.place),
                outcome=row.outcome or row.reason,
            )

    async def _write_down(
        self, run: Run, refused: Mapping[Place, str], sightings: Sightings | None
    ) -> tuple[str | None, Deciding | None]:
        if run.partition is None:
            if not run.strays:
                return None, None
            async with self._parking.turn(HOME, run.moves, ()) as turn:
                return await turn.write_down(run.strays), None
        topic = streams().topics[run.partition.topic]
        wanted = {ruling.place.offset for ruling in run.rulings}
        if sightings is None:
            sightings = await self._sightings(run, wanted)
        judge: Judge = judge_by(sightings, topic.once_within) if topic.once_within else all_count
        wanted |= {mark.ruling.place.offset for mark in run.marks}
        wanted |= {one.offset for of_view in sightings.values() for one in of_view}
        async with self._parking.turn(run.partition, run.moves, None if topic.ordered else wanted) as turn:
            if topic.ordered:
                wanted |= {one.offset for one in await turn.undecided()}
            rows = await self._whole(await turn.at(wanted))

            def read(row: Parked) -> Decoded | Parked:
                return self._read(row, refused)

            deciding = Deciding(rows, ordered=topic.ordered, read=read, judge=judge)
            for ruling in run.rulings:
                deciding.decide(ruling)
            written = [*deciding.changed, *run.strays]
            for mark in run.marks:
                row = deciding.rows.get(mark.ruling.place.offset)
                if row is not None and (row.mark is None or not took_its_id(row)):
                    written.append(mark.without_effect)
            return (await turn.write_down(written) if written else None), deciding

    async def _whole(self, rows: Iterable[Parked]) -> list[Parked]:
        """As the log has them, also where what was parked has lost the name of who was forgotten since."""
        return [row._replace(record=await self._decisions.record(row.place)) if row.is_blank else row for row in rows]

    def _read(self, row: Parked, refused: Mapping[Place, str]) -> Decoded | Parked:
        if row.place in refused:
            return row._replace(reason="refused-by-store", detail=refused[row.place])
        partition = Partition(row.place.topic, row.place.partition)
        read = read_records([row.record], partition, self._partitions[partition.topic])
        return read.decoded[0] if read.decoded else read.poison[0]

    async def _sightings(self, run: Run, wanted: set[int]) -> Sightings:
        """Of the views among the records to be retried: where else their ids lie."""
        assert run.partition is not None
        if not judges(self._projection, run.partition):
            return {}
        async with self._parking.turn(run.partition, run.moves, wanted) as turn:
            rows = await self._whole(await turn.at(wanted))
        views: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            found = self._read(row, {})
            if isinstance(found, Decoded) and found.event.type == VideoViewed.type:
                views[found.event.key].append(found.recorded.recorded_at_ms)
        return await self._sighted(run.partition, views, _judged_to(run))

    async def _sighted(self, partition: Partition, views: Mapping[str, Sequence[int]], to_offset: int) -> Sightings:
        within = streams().topics[partition.topic].once_within
        if within is None or not judges(self._projection, partition):
            return {}
        return await self._decisions.sightings(partition, views, within, to_offset)

    async def _carry_out_parts(
        self,
        run: Run,
        refused: Mapping[Place, str],
        sightings: Sightings | None,
        counted: Sequence[Decoded],
        why: ChangeRefused,
    ) -> None:
        """Find the record that the store refuses: of many decisions by halves, of one by leaving out its last record."""
        if len(run.rulings) > 1:
            for half in _halves(run):
                await self._carry_out(half, refused, sightings)
            return
        if not counted:
            raise why
        await self._carry_out(run, {**refused, counted[-1].recorded.place: str(why)}, sightings)


def _halves(run: Run) -> tuple[Run, Run]:
    half = len(run.rulings) // 2
    middle = _offset_of(run._replace(rulings=run.rulings[half:]))
    first = run._replace(
        next_offset=middle,
        rulings=run.rulings[:half],
        strays=[one for one in run.strays if one.place.offset < middle],
        marks=[mark for mark in run.marks if mark.offset < middle],
    )
    second = run._replace(
        moves=run.moves._replace(offset=middle),
        rulings=run.rulings[half:],
        strays=[one for one in run.strays if one.place.offset >= middle],
        marks=[mark for mark in run.marks if mark.offset >= middle],
    )
    return first, second


def judges(projection: Projection, partition: Partition) -> bool:
    """Whether what lies there reaches the projection only if it counts."""
    return projection.counts_once and streams().topics[partition.topic].once_within is not None


def _offset_of(run: Run) -> int:
    """Where its first ruling lies, on the partition whose checkpoint it moves."""
    first = next(iter(run.rulings), None)
    if first is None:
        return run.moves.offset
    return first.at if first.mark is None else first.mark


def _judged_to(run: Run) -> int:
    return max((ruling.judged_to for ruling in run.rulings), default=0)
