"""Places in the log, and the signed token that carries them through a client."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

import orjson

SIGNATURE_BYTES = 12  # 96 bits: a token grants nothing but a wait, so short beats strong here
MAX_TOKEN_LENGTH = 2_048
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


class Place(NamedTuple):
    """Where a record lies: topic (its logical name, without prefix), partition, offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition} at {self.offset:,}"

    @property
    def id(self) -> str:
        """As a decision and the command line name it: `views:3:41207` (`schemas.bounds.RecordId`)."""
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def of(cls, record_id: str) -> Self:
        """The place that an id names. Raises ValueError."""
        topic, partition, offset = record_id.split(":")
        return cls(topic, int(partition), int(offset))


class Recorded(NamedTuple):
    """How the log holds an event: its place, the broker's append time in milliseconds since 1970, and the event's id."""

    place: Place
    recorded_at_ms: int
    event_id: str


def moment_of(time_ms: int) -> datetime:
    """The moment in UTC that is so many milliseconds after 1970 began."""
    return EPOCH + timedelta(milliseconds=time_ms)


def milliseconds_of(moment: datetime) -> int:
    """How many whole milliseconds after 1970 began."""
    return (moment - EPOCH) // MILLISECOND


class WrongToken(ValueError):
    """A token that this system did not sign, or that was changed on its way."""


def _signature(body: bytes, secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"event-position:" + body, hashlib.sha256)[:SIGNATURE_BYTES]


def furthest(places: Iterable[Place]) -> list[Place]:
    """Of several places on one partition the furthest."""
    found: dict[tuple[str, int], int] = {}
    for topic, partition, offset in places:
        found[topic, partition] = max(offset, found.get((topic, partition), -1))
    return [Place(topic, partition, offset) for (topic, partition), offset in sorted(found.items())]


def write_token(places: Iterable[Place], secret: str) -> str:
    """A URL-safe token for `places`; of several on one partition the furthest stays."""
    body = orjson.dumps([list(place) for place in furthest(places)])
    return base64.urlsafe_b64encode(_signature(body, secret) + body).rstrip(b"=").decode()


def read_token(token: str, secret: str) -> list[Place]:
    """The places in `token`. Raises WrongToken."""
    if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        raise WrongToken("is not a token of this system")
    try:
        raw = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise WrongToken("is not a token of this system") from None
    signature, body = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(body, secret)):
        raise WrongToken("is not a token of this system")
    return [Place(topic, partition, offset) for topic, partition, offset in orjson.loads(body)]
