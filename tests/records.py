"""Records as a Kafka client hands them out."""

from typing import NamedTuple

from schemas.envelope import Message


class Kept(NamedTuple):
    """A record in the log."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int = 3
    offset: int = 41_207
    timestamp: int = 1_777_666_500_000


def kept(message: Message, *, partition: int = 3, offset: int = 41_207, timestamp: int = 1_777_666_500_000) -> Kept:
    """`message` as the log holds it."""
    return Kept(message.key, message.value, message.headers, partition, offset, timestamp)
