"""Records to events, a batch at a time; what is none is poison."""

from collections.abc import Sequence
from typing import NamedTuple

from agents.handover import Partition
from agents.parking import Parked
from schemas.columns import Columns
from schemas.decoded import Decoded
from schemas.envelope import decode
from schemas.errors import InvalidEvent, Poison, WrongPartition
from schemas.events import ViewRetried
from schemas.log import Place
from schemas.partitions import partitions_of
from schemas.records import Record
from schemas.usual import decode_usual

LONGEST_KEY_BYTES = 256  # no id is as long; keys are hashed side by side, each in the room that the longest takes
FEW = 50  # records that are decoded one by one
LONGEST_DETAIL = 1_000  # it may quote a key of any length


class Read(NamedTuple):
    """What a batch holds: events, and poison."""

    decoded: Sequence[Decoded]
    poison: list[Parked]


def read_records(records: Sequence[Record], partition: Partition, partitions: int) -> Read:
    """Each record as an event, or as poison with its reason."""
    if not records:
        return Read([], [])
    keys = records.keys if isinstance(records, Columns) else [record.key for record in records]
    lies_on = partitions_of([(key or b"")[:LONGEST_KEY_BYTES] for key in keys], partitions)
    if (lies_on == partition.number).all() and (usual := decode_usual(records, partition.topic)) is not None:
        return Read(usual, [])
    if len(records) > FEW:
        # One odd record makes only a few others take the long way.
        half = len(records) // 2
        first, second = (read_records(part, partition, partitions) for part in (records[:half], records[half:]))
        return Read([*first.decoded, *second.decoded], [*first.poison, *second.poison])
    decoded: list[Decoded] = []
    parked: list[Parked] = []
    for record, expected in zip(records, lies_on, strict=True):
        try:
            item = decode(record, partition.topic)
            if expected != partition.number:
                raise WrongPartition(
                    f"the key {record.key!r} belongs on partition {expected}, not on {partition.number}; "
                    "produce with partitioner=murmur2"
                )
            if isinstance(item.event, ViewRetried):
                _lies_behind_its_view(item.event, item.recorded.place)
        except Poison as poison:
            place = Place(partition.topic, partition.number, record.offset)
            parked.append(Parked(place, record, poison.reason, str(poison)[:LONGEST_DETAIL]))
        else:
            decoded.append(item)
    return Read(decoded, parked)


def _lies_behind_its_view(mark: ViewRetried, at: Place) -> None:
    view = Place.of(mark.record)
    if view[:2] != at[:2] or view.offset >= at.offset:
        raise InvalidEvent(
            f"record: {mark.record} lies not before its retry, which is at {at}; only `faust -A agents parked` writes one"
        )
