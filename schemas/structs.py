"""Stand-ins for the events that come in millions: the same fields, checked the same, decoded many times as fast, a batch at once.

`events_in` takes only what is plain: no unknown field, times in UTC. For everything else it returns None, and the models of `events`
decide. So the models alone say what is refused and in which words; what both take they take for the same, as a property test holds.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from .bounds import EARLIEST, LATEST, MAX_DURATION_SECONDS, PlaybackState
from .events import EVENTS, Event, PositionUpdated, VideoViewed

FINER_THAN_MICROSECONDS = re.compile(rb"\.[0-9]{7}")  # the models cut such a time off, msgspec rounds it
ID_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"

OCCURRED_AT, TIME_ZONE = attrgetter("occurred_at"), attrgetter("tzinfo")

Id = Annotated[
    str, Meta(min_length=1, max_length=64)
]  # its letters are checked apart: a pattern would cost more than all the rest
Seconds = Annotated[float, Meta(ge=0, le=MAX_DURATION_SECONDS)]
Moment = Annotated[datetime, Meta(tz=True)]


class Viewed(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A `VideoViewed`."""

    type: ClassVar[str] = VideoViewed.type
    topic: ClassVar[str] = VideoViewed.topic
    key_field: ClassVar[str] = VideoViewed.key_field

    occurred_at: Moment
    view_id: Id
    video_id: Id
    viewer_id: Id | None = None
    watched_seconds: Seconds | None = None
    session_id: Id | None = None

    @property
    def key(self) -> str:
        return self.view_id


class Moved(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A `PositionUpdated`."""

    type: ClassVar[str] = PositionUpdated.type
    topic: ClassVar[str] = PositionUpdated.topic
    key_field: ClassVar[str] = PositionUpdated.key_field

    occurred_at: Moment
    viewer_id: Id
    video_id: Id
    position_seconds: Seconds
    duration_seconds: Seconds | None = None
    session_id: Id | None = None
    state: PlaybackState | None = None

    @property
    def key(self) -> str:
        return self.viewer_id


class Usual(NamedTuple):
    """One kind of event that comes in millions: how it is decoded, and its fields that hold ids, the key first."""

    decoder: msgspec.json.Decoder[Viewed | Moved]
    ids: Sequence[Callable[[Viewed | Moved], str | None]]


USUAL: dict[tuple[str, bytes], Usual] = {
    (struct.topic, struct.type.encode()): Usual(msgspec.json.Decoder(struct), [attrgetter(name) for name in ids])
    for struct, ids in (
        (Viewed, ("view_id", "video_id", "viewer_id", "session_id")),
        (Moved, ("viewer_id", "video_id", "session_id")),
    )
    if struct.type in EVENTS  # an older version takes the long way, past its upcaster
}


def events_in(
    values: Sequence[bytes], event_type: bytes, topic: str, keys: Sequence[bytes | None]
) -> Sequence[Event] | None:
    """The event in each of `values`; None unless all are usual, well formed, at home on `topic` and keyed by `keys`."""
    usual = USUAL.get((topic, event_type))
    if usual is None:
        return None
    try:
        events = list(map(usual.decoder.decode, values))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    times = list(map(OCCURRED_AT, events))
    if set(map(TIME_ZONE, times)) != {UTC} or min(times) < EARLIEST or max(times) >= LATEST:
        return None
    # No id is empty, so that what is filtered out is null.
    ids = [list(filter(None, map(of, events))) for of in usual.ids]
    if not _are_keys(ids[0], keys) or "".join(map("".join, ids)).encode().translate(None, ID_BYTES):
        return None
    return None if FINER_THAN_MICROSECONDS.search(b"".join(values)) else cast("Sequence[Event]", events)


def _are_keys(ids: Sequence[str], keys: Sequence[bytes | None]) -> bool:
    """Whether they are the same, if none of `ids` holds a line's end."""
    try:
        return len(ids) == len(keys) and "\n".join(ids).encode() == b"\n".join(keys)  # type: ignore[arg-type]
    except TypeError:  # a record has no key
        return False
