"""One batch: decode, judge, fold, apply."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import structlog

from agents.handover import Batch, Partition
from agents.metrics import EVENTS_FOLDED, RECORDS_PARKED, SINK_APPLY_SECONDS, count_refused, timed
from agents.parking import Parked, Parking
from projections.changes import Change
from projections.counting import COUNTS, SeenIds
from projections.projection import Projection, Refused
from projections.sinks.sink import ChangeRefused, Sink
from schemas.envelope import Decoded, Record, decode, decode_usual, id_of
from schemas.errors import Poison, WrongPartition
from schemas.events import VideoViewed
from schemas.log import Place, Recorded
from schemas.partitions import partitions_of

LONGEST_KEY_BYTES = 256  # no id is as long; keys are hashed side by side, each in the room that the longest takes
FEW = 50  # records that are decoded one by one
LONGEST_DETAIL = 1_000  # it may quote a key of any length

logger = structlog.get_logger(__name__)


class SeenIdsSource(Protocol):
    """Hands out the seen ids of a partition, able to judge from `from_offset` on."""

    async def window(self, projection: str, partition: Partition, from_offset: int) -> SeenIds: ...


class Read(NamedTuple):
    """What a batch holds: events, and poison."""

    decoded: list[Decoded]
    poison: list[Parked]


class Judged(NamedTuple):
    """What reaches the fold, and the views that do not count."""

    counted: list[Decoded]
    refused: list[Refused]


class Stretch(NamedTuple):
    """The part of a batch in [from_offset, next_offset), judged."""

    partition: Partition
    from_offset: int
    next_offset: int
    judged: Judged

    def between(self, from_offset: int, next_offset: int) -> "Stretch":
        """The part of it in [from_offset, next_offset)."""

        def lies_there(item: Decoded | Refused) -> bool:
            return from_offset <= item.recorded.place.offset < next_offset

        judged = Judged([*filter(lies_there, self.judged.counted)], [*filter(lies_there, self.judged.refused)])
        return Stretch(self.partition, from_offset, next_offset, judged)


class Folding:
    """Folds the batches of one projection into its sink. `partitions` gives each topic's partition count."""

    def __init__(
        self, projection: Projection, sink: Sink, parking: Parking, seen: SeenIdsSource, partitions: dict[str, int]
    ) -> None:
        self._projection = projection
        self._sink = sink
        self._parking = parking
        self._seen = seen
        self._partitions = partitions

    async def fold(self, batch: Batch) -> None:
        """Decode, judge, fold and apply `batch`. Raises CheckpointMoved or StoreUnavailable, with the batch not applied."""
        partition = batch.partition
        read = read_records(batch.records, partition, self._partitions[partition.topic])
        await self._park(read.poison)
        judged = await self._judged(batch, read.decoded)
        EVENTS_FOLDED.labels(self._projection.name, partition.topic).inc(len(judged.counted))
        count_refused(self._projection.name, (item.verdict for item in judged.refused))
        await self._apply(Stretch(partition, batch.from_offset, batch.next_offset, judged), batch.records)

    async def _judged(self, batch: Batch, decoded: list[Decoded]) -> Judged:
        """Of views only those that count reach a projection that counts."""
        if not self._projection.counts_once or not any(item.event.type == VideoViewed.type for item in decoded):
            return Judged(decoded, [])
        seen = await self._seen.window(self._projection.full_name, batch.partition, batch.from_offset)
        judged = judge(seen, decoded)
        # What was no view, or nothing at all, is behind it too: the next batch finds no gap to read again.
        seen.judged_to = max(seen.judged_to, batch.next_offset)
        return judged

    async def _apply(self, stretch: Stretch, records: Sequence[Record]) -> None:
        """Apply a stretch. Where the store refuses a change, the event behind it is found and parked."""
        changes, offsets = self._changes(stretch.judged)
        expected = Place(stretch.partition.topic, stretch.partition.number, stretch.from_offset)
        try:
            with timed(SINK_APPLY_SECONDS, self._projection.name):
                await self._sink.apply(changes, expected=expected, next_offset=stretch.next_offset, offsets=offsets)
        except ChangeRefused as refused:
            await self._apply_parts(stretch, records, refused)

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
        offsets = sorted(item.recorded.place.offset for items in stretch.judged for item in items)
        if not offsets:
            raise why
        if len(offsets) == 1:
            record = next(record for record in records if record.offset == offsets[0])
            place = Place(stretch.partition.topic, stretch.partition.number, offsets[0])
            await self._park([Parked(place, record, "refused-by-store", str(why))])
            await self._apply(stretch._replace(judged=Judged([], [])), records)
            return
        middle = offsets[len(offsets) // 2]
        await self._apply(stretch.between(stretch.from_offset, middle), records)
        await self._apply(stretch.between(middle, stretch.next_offset), records)

    async def _park(self, poison: Sequence[Parked]) -> None:
        if not poison:
            return
        await self._parking.park(poison)
        for parked in poison:
            RECORDS_PARKED.labels(self._projection.name, parked.reason).inc()
            logger.warning(
                "parked a record that cannot be folded",
                projection=self._projection.name,
                place=str(parked.place),
                event_id=id_of(parked.record),
                reason=parked.reason,
                detail=parked.detail,
            )


def read_records(records: Sequence[Record], partition: Partition, partitions: int) -> Read:
    """Each record as an event, or as poison with its reason."""
    if not records:
        return Read([], [])
    lies_on = partitions_of([(record.key or b"")[:LONGEST_KEY_BYTES] for record in records], partitions)
    if (lies_on == partition.number).all() and (usual := decode_usual(records, partition.topic)) is not None:
        return Read(usual, [])
    if len(records) > FEW:
        # One odd record makes only a few others take the long way.
        half = len(records) // 2
        first, second = (read_records(part, partition, partitions) for part in (records[:half], records[half:]))
        return Read([*first.decoded, *second.decoded], [*first.poison, *second.poison])
    read = Read([], [])
    for record, expected in zip(records, lies_on, strict=True):
        try:
            decoded = decode(record, partition.topic)
            if expected != partition.number:
                raise WrongPartition(
                    f"the key {record.key!r} belongs on partition {expected}, not on {partition.number}; "
                    "produce with partitioner=murmur2"
                )
        except Poison as poison:
            place = Place(partition.topic, partition.number, record.offset)
            read.poison.append(Parked(place, record, poison.reason, str(poison)[:LONGEST_DETAIL]))
        else:
            read.decoded.append(decoded)
    return read


def judge(seen: SeenIds, decoded: Sequence[Decoded]) -> Judged:
    """What reaches a fold that counts: the views that do, and whatever is no view."""
    views = [item for item in decoded if item[0].type == VideoViewed.type]
    verdicts = seen.judge_all(cast("list[tuple[VideoViewed, Recorded]]", views))
    refused = [
        Refused(cast(VideoViewed, item.event), item.recorded, verdict)
        for item, verdict in zip(views, verdicts, strict=True)
        if verdict is not COUNTS
    ]
    if not refused:
        return Judged(list(decoded), [])
    offsets = {item.recorded.place.offset for item in refused}
    return Judged([item for item in decoded if item[1].place.offset not in offsets], refused)
