"""What answers look like, as models: the OpenAPI document is made of them, and tests hold answers against them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from projections.queries.leaderboard import Timeframe
from projections.queries.statistics import Bucket
from schemas.bounds import ContentType, Quality


class Answer(BaseModel):
    """An answer; more fields may come."""

    model_config = ConfigDict(extra="allow")


class EventPlace(Answer):
    """Where a write lies in the log."""

    id: str
    topic: str
    partition: int
    offset: int


class FieldError(Answer):
    """One thing that is wrong: in the body (`pointer`, RFC 6901), the query (`parameter`) or a header."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class ProblemDocument(Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(default_factory=list)


class Variant(Answer):
    """One quality of a film that plays."""

    quality: Quality
    width: int
    height: int
    bandwidth: int = Field(description="peak, in bits per second")
    playlist_url: str


class Video(Answer):
    """A film."""

    id: str
    content_type: ContentType | None
    title: str | None
    description: str | None
    show_title: str | None
    season_number: int | None
    episode_number: int | None
    genre: str | None
    release_year: int | None
    rating: str | None
    status: Literal["PENDING", "PROCESSING", "COMPLETED", "FAILED"]
    progress: float = Field(ge=0, le=1)
    error: str | None
    duration_seconds: float | None
    width: int | None
    height: int | None
    variants: list[Variant]
    hls_url: str | None
    stream_url: str | None
    thumbnail_url: str | None
    storyboard_url: str | None
    uploaded_at: datetime | None


class Past(Answer):
    """An answer that may be about the past: then it says as of when, and where it is from."""

    as_of: datetime | None = None
    source: str | None = None


class CountedVideo(Video, Past):
    """A film with its views."""

    total_views: int


class Videos(Past):
    """A page of films."""

    total: int
    items: list[Video]


class FoundVideo(Video):
    """A film that matches; `highlight` holds escaped HTML with the matching words in <mark>."""

    highlight: dict[str, list[str]]


class Found(Answer):
    """A page of what was found."""

    total: int
    items: list[FoundVideo]
    facets: dict[str, dict[str, int]]
    took_ms: float


class Suggestion(Answer):
    text: str
    video_id: str


class Suggestions(Answer):
    suggestions: list[Suggestion]


class Uploaded(Answer):
    """A film whose bytes have arrived."""

    video_id: str
    status: str
    event: EventPlace


class Initiated(Answer):
    """An upload in parts that has begun."""

    upload_id: str
    part_size: int = Field(description="bytes of every part but the last")
    total_parts: int
    expires_at: datetime


class Part(Answer):
    part_number: int
    etag: str
    size: int


class Parts(Answer):
    upload_id: str
    parts: list[Part]
    received_bytes: int
    total_parts: int


class Accepted(Answer):
    """A write that was acknowledged."""

    event: EventPlace


class AcceptedView(Accepted):
    view_id: str


class StoppedAt(Answer):
    """Where a viewer stopped."""

    video_id: str
    position_seconds: float
    duration_seconds: float | None
    completed: bool
    updated_at: datetime | None
    resume: bool = Field(description="whether to offer to continue there")
    source: Literal["redis", "postgres"]


class HistoryItem(Answer):
    video: Video
    position_seconds: float
    duration_seconds: float | None
    percent: float | None
    updated_at: datetime


class History(Answer):
    items: list[HistoryItem]


class Viewer(Answer):
    viewer_id: str = Field(description="the pseudonym by which events speak of the viewer")


class ExportedView(Answer):
    """A view that counts; its place in the log is partition and offset of the topic `views`."""

    log_partition: int
    log_offset: int
    view_id: str
    video_id: str
    title: str | None
    occurred_at: datetime
    watched_seconds: float | None
    session_id: str | None


class ExportedFilm(Answer):
    """A film that was begun, as the history shows it."""

    video_id: str
    title: str | None
    position_seconds: float | None
    duration_seconds: float | None
    completed: bool | None
    updated_at: datetime | None


class ExportedPosition(ExportedFilm):
    """Where one session stopped."""

    session_id: str
    moved_at: datetime | None


class ViewerExport(Answer):
    """Everything that is held of a viewer."""

    viewer_id: str
    given_at: datetime | None = Field(description="when the pseudonym was given")
    exported_at: datetime
    views: list[ExportedView]
    positions: list[ExportedPosition]
    history: list[ExportedFilm]


class Ranked(Answer):
    rank: int
    video_id: str
    title: str | None
    views: int


class Top(Answer):
    """The films viewed most in a window that begins at `from` (null for all time)."""

    timeframe: Timeframe
    k: int
    from_: datetime | None = Field(alias="from")
    to: datetime
    as_of: datetime
    source: Literal["leaderboard", "aggregates", "raw"]
    items: list[Ranked]


class Stats(Answer):
    video_id: str
    total_views: int
    views_last_hour: int
    views_last_day: int
    views_last_week: int
    views_last_month: int
    views_last_year: int
    as_of: datetime
    source: Literal["leaderboard", "aggregates", "raw"]


class Point(Answer):
    start: datetime
    views: int


class ViewHistory(Past):
    video_id: str
    bucket: Bucket
    points: list[Point]


class Place(Answer):
    """Where a record lies in the log."""

    topic: str
    partition: int
    offset: int


class Refusal(Answer):
    """A view that does not count; of a duplicate the place of the earlier one, of one from the future by how much."""

    view_id: str
    place: Place
    earlier_place: Place | None = None
    ahead_seconds: float | None = None
    occurred_at: datetime
    recorded_at: datetime


class Refusals(Answer):
    """Views that do not count for one reason, and the newest of them."""

    reason: Literal["duplicate", "future"]
    views: int
    examples: list[Refusal]


class ParkedView(Answer):
    """A record that could not be read and whose bytes hold the film's id: it may be of this film."""

    place: Place
    reason: str
    detail: str


class Stretch(Answer):
    """Where on one partition the views lie that count."""

    partition: int
    views: int
    late: int
    first_offset: int
    last_offset: int


class Witness(Answer):
    """What another store says, and the raw views up to where it is. Where that cannot be told `equal` is null, and `why` tells."""

    source: Literal["leaderboard", "aggregates"]
    views: int | None
    raw: int | None
    equal: bool | None
    why: str | None


class Explanation(Answer):
    """What a film's number is made of: `records` = `counted` + those refused + those parked."""

    video_id: str
    timeframe: Timeframe
    from_: datetime | None = Field(alias="from")
    as_of: datetime
    counted: int
    late: int = Field(description="of the counted, recorded over a minute after they occurred")
    refused: list[Refusals]
    parked: list[ParkedView]
    records: int
    stretches: list[Stretch]
    positions: dict[str, int] = Field(description="by partition of views the first offset that is not folded yet")
    decided_to: int = Field(
        description="the offset of the first decision about parked records that is not carried out yet"
    )
    witnesses: list[Witness]


class Webhook(Answer):
    """A subscription; `why` says why it is paused or disabled."""

    id: str
    url: str
    types: list[str] | None
    description: str | None
    state: Literal["active", "paused", "disabled"]
    why: str | None
    created_at: datetime
    cursor: str = Field(description="the first event of each partition that is not delivered yet, for a replay")


class NewWebhook(Webhook):
    secret: str = Field(description="what calls are signed with; told this once")


class WebhookList(Answer):
    items: list[Webhook]


class Pinged(Answer):
    """What came of one call."""

    event_id: str
    delivered: bool
    status: int | None
    error: str | None
    took_ms: float


class DeliveryAttempt(Answer):
    """One call: the subscriber's status, or an error in words."""

    event_id: str
    event_type: str
    topic: str
    partition: int
    offset: int
    attempt: int
    attempted_at: datetime
    took_ms: float
    status: int | None
    error: str | None


class Deliveries(Answer):
    items: list[DeliveryAttempt]


class Check(Answer):
    status: Literal["ok", "down"]
    latency_ms: float | None = None
    error: str | None = None


class Health(Answer):
    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Check]


class Ready(Answer):
    status: Literal["ok", "unavailable"]
