"""Stand-ins for the events that come in millions: the same fields, checked the same, decoded several times as fast.

`decode_usual` takes only what is plain: no unknown field, times in UTC. For everything else it returns None, and the models of `events`
decide. So the models alone say what is refused and in which words; what both take they take for the same, as a property test holds.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar, cast

import msgspec
from msgspec import Meta

from .bounds import EARLIEST, LATEST, MAX_DURATION_SECONDS, PlaybackState
from .events import Event, PositionUpdated, VideoViewed

FINER_THAN_MICROSECONDS = re.compile(rb"\.[0-9]{7}")  # the models cut such a time off, msgspec rounds it
ID_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"

Id = Annotated[
    str, Meta(min_length=1, max_length=64)
]  # its letters are checked by `_are_ids`: a pattern would cost more than the rest
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


DECODERS: dict[bytes, tuple[str, msgspec.json.Decoder[Viewed | Moved]]] = {
    Viewed.type.encode(): (Viewed.topic, msgspec.json.Decoder(Viewed)),
    Moved.type.encode(): (Moved.topic, msgspec.json.Decoder(Moved)),
}


def decode_usual(event_type: bytes, topic: str, key: bytes, data: bytes) -> Event | None:
    """The event in `data`, if it is one of the usual ones, well formed, at home on `topic` and keyed by `key`."""
    found = DECODERS.get(event_type)
    if found is None or found[0] != topic:
        return None
    try:
        event = found[1].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    at = event.occurred_at
    if at.tzinfo is not UTC or not EARLIEST <= at < LATEST or FINER_THAN_MICROSECONDS.search(data):
        return None
    if event.key.encode() != key or not _hold_no_other_letters(event):
        return None
    return cast(Event, event)


def _hold_no_other_letters(event: Viewed | Moved) -> bool:
    third = event.viewer_id if type(event) is Viewed else None
    ids = f"{event.key}{event.video_id}{event.session_id or ''}{third or ''}"
    return not ids.encode().translate(None, ID_BYTES)
