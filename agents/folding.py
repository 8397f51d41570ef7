"""One batch: decode, judge, fold, apply."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import structlog

from agents.handover import Batch, Partition
from agents.parking import Parked, Parking
from projections.changes import Change
from projections.counting import Counts, SeenIds
from projections.projection import Projection
from projections.sinks.sink import ChangeRefused, Sink
from schemas.envelope import Decoded, Record, decode
from schemas.errors import Poison, WrongPartition
from schemas.events import VideoViewed
from schemas.log import Place
from schemas.partitions import partitions_of

LONGEST_KEY_BYTES = 256  # no id is as long; keys are hashed side by side, each in the room that the longest takes
LONGEST_DETAIL = 1_000  # it may quote a key of any length

logger = structlog.get_logger(__name__)


class SeenIdsSource(Protocol):
    """Hands out the seen ids of a partition, able to judge from `from_offset` on."""

    async def window(self, projection: str, partition: Partition, from_offset: int) -> SeenIds: ...


class Read(NamedTuple):
    """What a batch holds: events, each with its record, and poison."""

    decoded: list[tuple[Decoded, Record]]
    poison: list[Parked]


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
        topic = batch.partition.topic
        read = read_records(batch.records, batch.partition, self._partitions[topic])
        await self._park(read.poison)
        counted = await self._counted(batch, read.decoded)
        await self._apply(batch.partition, batch.from_offset, batch.next_offset, counted)

    async def _counted(self, batch: Batch, decoded: list[tuple[Decoded, Record]]) -> list[tuple[Decoded, Record]]:
        """What reaches the fold: of views only those that count, where the projection counts."""
        if not self._projection.counts_once or not any(isinstance(d.event, VideoViewed) for d, _ in decoded):
            return decoded
        seen = await self._seen.window(self._projection.full_name, batch.partition, batch.from_offset)
        counted = [item for item in decoded if counts(seen, item[0])]
        # What was no view, or nothing at all, is behind it too: the next batch finds no gap to read again.
        seen.judged_to = max(seen.judged_to, batch.next_offset)
        return counted

    async def _apply(
        self, partition: Partition, from_offset: int, next_offset: int, events: Sequence[tuple[Decoded, Record]]
    ) -> None:
        """Apply the events of [from_offset, next_offset). Where the store refuses a change, the event behind it is found and parked."""
        changes: list[Change] = []
        offsets: list[int] = []
        for decoded, _ in events:
            meant = list(self._projection.fold((decoded,)))
            changes += meant
            offsets += [decoded.recorded.place.offset] * len(meant)
        expected = Place(partition.topic, partition.number, from_offset)
        try:
            await self._sink.apply(changes, expected=expected, next_offset=next_offset, offsets=offsets)
        except ChangeRefused as refused:
            await self._apply_parts(partition, from_offset, next_offset, events, refused)

    async def _apply_parts(
        self,
        partition: Partition,
        from_offset: int,
        next_offset: int,
        events: Sequence[tuple[Decoded, Record]],
        refused: ChangeRefused,
    ) -> None:
        if not events:
            raise refused
        if len(events) == 1:
            decoded, record = events[0]
            await self._park([Parked(decoded.recorded.place, record, "refused-by-store", str(refused))])
            await self._apply(partition, from_offset, next_offset, ())
            return
        half = len(events) // 2
        middle = events[half][0].recorded.place.offset
        await self._apply(partition, from_offset, middle, events[:half])
        await self._apply(partition, middle, next_offset, events[half:])

    async def _park(self, poison: Sequence[Parked]) -> None:
        if not poison:
            return
        await self._parking.park(poison)
        for parked in poison:
            logger.warning(
                "parked a record that cannot be folded",
                projection=self._projection.name,
                place=str(parked.place),
                reason=parked.reason,
                detail=parked.detail,
            )


def read_records(records: Sequence[Record], partition: Partition, partitions: int) -> Read:
    """Each record as an event, or as poison with its reason."""
    read = Read([], [])
    lies_on = partitions_of([(record.key or b"")[:LONGEST_KEY_BYTES] for record in records], partitions)
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
            read.decoded.append((decoded, record))
    return read


def counts(seen: SeenIds, decoded: Decoded) -> bool:
    """Whether the event reaches a fold that counts; what is no view always does."""
    event, recorded = decoded
    return not isinstance(event, VideoViewed) or isinstance(seen.judge(event, recorded), Counts)
