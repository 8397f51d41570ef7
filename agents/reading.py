"""Records to events, a batch at a time; what is none is poison."""

from collections.abc import Sequence
from typing import NamedTuple

from agents.handover import Partition
from agents.parking import Parked
from schemas.envelope import Decoded, Record, decode, decode_usual
from schemas.errors import Poison, WrongPartition
from schemas.log import Place
from schemas.partitions import partitions_of

LONGEST_KEY_BYTES = 256  # no id is as long; keys are hashed side by side, each in the room that the longest takes
FEW = 50  # records that are decoded one by one
LONGEST_DETAIL = 1_000  # it may quote a key of any length


class Read(NamedTuple):
    """What a batch holds: events, and poison."""

    decoded: list[Decoded]
    poison: list[Parked]


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
