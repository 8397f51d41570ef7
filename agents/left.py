"""Records that were not folded at their places, and what was decided about them: what whoever folds the log in memory has to know."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from agents.deciding import waiting
from agents.decisions import DecisionsOfWorker, Ruling
from agents.handover import Partition
from agents.parking import Parked
from agents.reading import Read
from projections.projection import Projection
from projections.queries.versions import Version
from projections.sinks.postgres import reaching_postgres
from schemas.decoded import Decoded
from schemas.log import Place
from schemas.records import Record

END_OF_LOG = 2**63 - 1
# What a step wrote down that was taken is so, also before it is written over.
LEFT = """
select topic, partition, log_offset, decided_by from parked where projection = $1 and version = $2
union all
select topic, partition, log_offset, decided_by from parking_steps where projection = $1 and version = $2
and (step = any($3::text[]) or step in (select step from checkpoints where projection = $1 and version = $2))
"""

Left = Mapping[Partition, Mapping[int, int | None]]
"""The offsets of what a version has not folded at its place, each with that of the decision that came of it; None while there is none."""

Fates = Mapping[int, Ruling | None]
"""The same of one partition, up to a moment: what was decided later is not decided yet."""


class Horizon(NamedTuple):
    """How much is known of the decisions: those before an offset, and recorded by a moment."""

    decided_to: int = END_OF_LOG
    until_ms: int | None = None

    def knows(self, ruling: Ruling) -> bool:
        """One that is carried out at its mark is known where that is, whatever decisions are."""
        is_reached = ruling.is_marked or ruling.at < self.decided_to
        return is_reached and (self.until_ms is None or ruling.recorded_at_ms <= self.until_ms)


async def left_by(connection: Any, version: Version, steps: Sequence[str] = ()) -> Left:
    """What this version has left, now or until a decision; `steps` are the newest ones, where its checkpoints are not in Postgres.

    Raises StoreUnavailable.
    """
    with reaching_postgres():
        rows = await connection.fetch(LEFT, version.projection, version.number, steps)
    left: dict[Partition, dict[int, int | None]] = {}
    for topic, number, offset, decided_by in rows:
        of_partition = left.setdefault(Partition(topic, number), {})
        of_partition[offset] = of_partition.get(offset) if decided_by is None else decided_by
    return left


def fates_by(left: Mapping[int, int | None], decisions: DecisionsOfWorker, horizon: Horizon) -> Fates:
    """Of what a version has left."""
    rulings = {offset: None if at is None else decisions.at(at) for offset, at in left.items()}
    return {offset: ruling if ruling and horizon.knows(ruling) else None for offset, ruling in rulings.items()}


def fates_in_log(decisions: DecisionsOfWorker, projection: Projection, partition: Partition, horizon: Horizon) -> Fates:
    """As the log alone has it: what was ever decided about was left at its place, and its newest decision is the one that counts.

    What only waited for another is not told: whether it did depends on the others.
    """
    newest = decisions.newest_of(projection.name, partition)
    decided = decisions.decided(projection.name, partition, 0, END_OF_LOG)
    return {offset: newest[offset] if horizon.knows(newest[offset]) else None for offset in decided}


def folded(partition: Partition, read: Read, fates: Fates) -> list[Decoded]:
    """What takes effect of records that nothing waits behind but by its own fate: what was decided is as good as folded at its place."""
    events = []
    for item in read.decoded:
        place = item.recorded.place
        ruling = fates.get(place.offset)
        if place.offset not in fates or (ruling is not None and not ruling.discards(place)):
            events.append(item)
    return events


class InOrder:
    """The records of a partition whose order matters: an event whose key has one before it that was left waits behind that."""

    def __init__(self, partition: Partition, left: Collection[int]) -> None:
        self._partition = partition
        self._left = left
        self._behind: dict[bytes, Place] = {}
        self.rows: list[Parked] = []

    def folded(self, records: Sequence[Record], read: Read) -> list[Decoded]:
        """What of `records` is folded at its place; the others go to `rows`."""
        events = {item.recorded.place.offset: item for item in read.decoded}
        folded = []
        for record in records:
            place, event = Place(*self._partition, record.offset), events.get(record.offset)
            row = Parked(place, record, "", "")
            if event is None or record.offset in self._left:
                self.rows.append(row)
                if record.key is not None:
                    self._behind.setdefault(record.key, place)
            elif first := self._behind.get(event.event.key.encode()):
                self.rows.append(waiting(row, first))
            else:
                folded.append(event)
        return folded
