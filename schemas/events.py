"""What can happen: frozen models, named in the past tense. `EVENTS` maps each type to its model.

A field may be added when it is optional, a bound may be widened; anything else is a new type with a new version and an upcaster
from the old one (`schemas/compatibility.py` holds the rules, decision 0016 the why).
No name, address or e-mail of a viewer enters an event: `viewer_id` is always the random pseudonym.
"""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .bounds import (
    BitsPerSecond,
    Bytes,
    ContentType,
    Id,
    Label,
    Moment,
    Noun,
    ObjectKey,
    Offset,
    Ordinal,
    Pixels,
    PlaybackState,
    Quality,
    Reason,
    ReasonWord,
    RecordId,
    Seconds,
    Share,
    Text,
    Title,
    Year,
)

NAMESPACE = "entertainmenttime"
OF_AN_EPISODE = ("show_title", "season_number", "episode_number")


class Event(BaseModel):
    """One thing that happened. `type` names it with its major version, `topic` is where it lies, `key_field` holds its Kafka key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    type: ClassVar[str]
    topic: ClassVar[str]
    key_field: ClassVar[str]

    occurred_at: Moment

    @property
    def key(self) -> str:
        """The Kafka key: the id that the event is about."""
        value: str = getattr(self, self.key_field)
        return value


class VideoEvent(Event):
    """Something in the life of one video; the events of a video are in order."""

    topic = "videos"
    key_field = "video_id"

    video_id: Id


class Metadata(BaseModel):
    """What the uploader says of a film. An episode names its show, season and number."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    content_type: ContentType
    title: Title
    description: Text | None = None
    show_title: Title | None = None
    season_number: Ordinal | None = None
    episode_number: Ordinal | None = None
    genre: Label | None = None
    release_year: Year | None = None
    rating: Label | None = None

    @model_validator(mode="after")
    def an_episode_names_its_show(self) -> Self:
        """Raises ValueError with the missing fields named."""
        if self.content_type == "episode":
            missing = [name for name in OF_AN_EPISODE if getattr(self, name) is None]
            if missing:
                raise ValueError(f"an episode needs {', '.join(missing)}")
        return self


class UploadInitiated(Metadata, VideoEvent):
    """An upload was begun: the film is announced, its bytes are on their way to `object_key`."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"content_type": {"const": "episode"}}, "required": ["content_type"]},
            "then": {
                "required": [*OF_AN_EPISODE],
                "properties": {name: {"not": {"type": "null"}} for name in OF_AN_EPISODE},
            },
        }
    )

    type = f"{NAMESPACE}.upload.initiated.v1"

    filename: Title
    size: Bytes | None = None
    object_key: ObjectKey


class UploadAborted(VideoEvent):
    """An upload was given up, by its owner or because it expired; nothing of it is kept."""

    type = f"{NAMESPACE}.upload.aborted.v1"

    reason: Label


class VideoUploaded(VideoEvent):
    """All bytes of the film lie at `object_key`, which never changes again."""

    type = f"{NAMESPACE}.video.uploaded.v1"

    object_key: ObjectKey
    size: Bytes
    etag: Title | None = None
    media_type: Label | None = None


class TranscodeProgressed(VideoEvent):
    """A media worker is at `progress` (0 to 1) of the job that it claimed as number `claim`."""

    type = f"{NAMESPACE}.video.transcode_progressed.v1"

    claim: int = Field(ge=1, le=2**53)
    progress: Share


class Variant(BaseModel):
    """One rung of the ladder. Bandwidth is the measured peak in bits per second (RFC 8216 §4.3.4.2)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    quality: Quality
    width: Pixels
    height: Pixels
    bandwidth: BitsPerSecond


class RenditionPublished(Variant, VideoEvent):
    """The segments and the playlist of one rung lie under `prefix`."""

    type = f"{NAMESPACE}.video.rendition_published.v1"

    claim: int = Field(ge=1, le=2**53)
    prefix: ObjectKey


class VideoTranscoded(VideoEvent):
    """The film plays: `prefix`/master.m3u8 and all it names are published. `passport` says what was found and done."""

    type = f"{NAMESPACE}.video.transcoded.v1"

    claim: int = Field(ge=1, le=2**53)
    prefix: ObjectKey
    duration_seconds: Seconds
    width: Pixels
    height: Pixels
    variants: list[Variant] = Field(min_length=1, max_length=16)
    thumbnail: Label | None = Field(None, description="file name under the prefix")
    storyboard: Label | None = Field(None, description="file name of a WebVTT under the prefix")
    passport: dict[str, Any] = Field(default_factory=dict)


class TranscodeFailed(VideoEvent):
    """The film cannot be played; `reason` is for the person who uploaded it."""

    type = f"{NAMESPACE}.video.transcode_failed.v1"

    claim: int = Field(ge=1, le=2**53)
    reason: Text


class VideoDeleted(VideoEvent):
    """The film is gone for everybody; only the log keeps its history."""

    type = f"{NAMESPACE}.video.deleted.v1"


class VideoViewed(Event):
    """A person watched. Counted once by `view_id`; keyed by it, so that a viral video heats no partition."""

    type = f"{NAMESPACE}.video.viewed.v1"
    topic = "views"
    key_field = "view_id"

    view_id: Id
    video_id: Id
    viewer_id: Id | None = None
    watched_seconds: Seconds | None = None
    session_id: Id | None = None


class ViewRetried(Event):
    """The parked view `record` is folded here, if it can be now: from here on its id is known as of `recorded_at`.

    It lies in the view's own partition, so that whoever judges what comes behind it knows. To who has read the view it means nothing.
    """

    type = f"{NAMESPACE}.view.retried.v1"
    topic = "views"
    key_field = "view_id"

    view_id: Id
    record: RecordId = Field(description="topic:partition:offset of the view")
    recorded_at: Moment = Field(description="when the view was recorded")
    decision: Offset = Field(description="where the decision lies, which commits together with this")
    projections: list[Noun] = Field(min_length=1, max_length=64, description="those that had parked it")


class PositionUpdated(Event):
    """A viewer is, or stopped, at a position of a film."""

    type = f"{NAMESPACE}.position.updated.v1"
    topic = "positions"
    key_field = "viewer_id"

    viewer_id: Id
    video_id: Id
    position_seconds: Seconds
    duration_seconds: Seconds | None = None
    session_id: Id | None = None
    state: PlaybackState | None = None


class Decision(Event):
    """What an operator decided about a record that projections had parked. It binds those that it names, and every rebuild of them."""

    topic = "decisions"
    key_field = "record"

    record: RecordId = Field(description="topic:partition:offset of the parked record")
    projections: list[Noun] = Field(min_length=1, max_length=64, description="those that had parked it")
    parked_for: ReasonWord | None = Field(None, description="the reason that it was parked for when it was decided")
    by: Label = Field(description="who decided")


class RecordRetried(Decision):
    """A parked record is to be folded now, by the code of today. A view is judged by the log before `judged_to`."""

    type = f"{NAMESPACE}.record.retried.v1"

    judged_to: Offset = Field(description="where the record's partition ended when it was decided")
    why: Reason | None = None


class RecordRetriedInPlace(RecordRetried):
    """A parked record is to be folded where an event on its own partition says so (`ViewRetried`), which is recorded together with this.

    What comes behind that one is judged knowing of it; it is another type than a retry, as who does not know of the other must not fold it.
    """

    type = f"{NAMESPACE}.record.retried_in_place.v1"


class RecordDiscarded(Decision):
    """A parked record is never to be folded; what waited behind it goes on."""

    type = f"{NAMESPACE}.record.discarded.v1"

    why: Reason


class ViewerForgotten(Event):
    """A viewer is to be forgotten: whatever a projection holds under this pseudonym goes, also what is still to be folded."""

    type = f"{NAMESPACE}.viewer.forgotten.v1"
    topic = "viewers"
    key_field = "viewer_id"

    viewer_id: Id


EVENTS: dict[str, type[Event]] = {
    event.type: event
    for event in (
        UploadInitiated,
        UploadAborted,
        VideoUploaded,
        TranscodeProgressed,
        RenditionPublished,
        VideoTranscoded,
        TranscodeFailed,
        VideoDeleted,
        VideoViewed,
        ViewRetried,
        PositionUpdated,
        RecordRetried,
        RecordRetriedInPlace,
        RecordDiscarded,
        ViewerForgotten,
    )
}
