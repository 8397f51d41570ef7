"""Events in a few words, and what they mean."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from projections.projection import Projection
from projections.sinks.memory import MemorySink
from schemas.decoded import Decoded
from schemas.events import (
    EVENTS,
    Event,
    PositionUpdated,
    TranscodeFailed,
    TranscodeProgressed,
    UploadAborted,
    UploadInitiated,
    Variant,
    VideoDeleted,
    VideoTranscoded,
    VideoUploaded,
    VideoViewed,
    ViewerForgotten,
)
from schemas.log import Place, Recorded

EVENING = datetime(2026, 5, 1, 20, 0, tzinfo=UTC)


def moment(text: str) -> datetime:
    """`20:10` of the evening that all tests play on, or a whole RFC 3339 time."""
    return datetime.fromisoformat(text) if "-" in text else datetime.fromisoformat(f"2026-05-01T{text}+00:00")


def announced(video: str, title: str = "Heat", *, at: str = "20:00", **more: Any) -> UploadInitiated:
    fields = {"content_type": "movie", "filename": "film.mp4", "object_key": f"videos/{video}/source/1", **more}
    return UploadInitiated(video_id=video, title=title, occurred_at=moment(at), **fields)


def uploaded(video: str, *, at: str = "20:01") -> VideoUploaded:
    return VideoUploaded(video_id=video, occurred_at=moment(at), object_key=f"videos/{video}/source/1", size=1_000)


def aborted(video: str, *, at: str = "20:02") -> UploadAborted:
    return UploadAborted(video_id=video, occurred_at=moment(at), reason="expired")


def progressed(video: str, progress: float, *, claim: int = 1, at: str = "20:03") -> TranscodeProgressed:
    return TranscodeProgressed(video_id=video, claim=claim, progress=progress, occurred_at=moment(at))


def transcoded(video: str, *, claim: int = 1, at: str = "20:04") -> VideoTranscoded:
    return VideoTranscoded(
        video_id=video,
        claim=claim,
        prefix=f"videos/{video}/hls/{claim}-a",
        duration_seconds=120.0,
        width=426,
        height=240,
        variants=[Variant(quality="240p", width=426, height=240, bandwidth=400_000)],
        occurred_at=moment(at),
    )


def failed(
    video: str, reason: str = "This file is not a video.", *, claim: int = 1, at: str = "20:04"
) -> TranscodeFailed:
    return TranscodeFailed(video_id=video, claim=claim, reason=reason, occurred_at=moment(at))


def deleted(video: str, *, at: str = "20:05") -> VideoDeleted:
    return VideoDeleted(video_id=video, occurred_at=moment(at))


def viewed(
    video: str, view: str = "view-1", *, at: str = "20:10", viewer: str | None = None, session: str | None = None
) -> VideoViewed:
    return VideoViewed(view_id=view, video_id=video, viewer_id=viewer, session_id=session, occurred_at=moment(at))


def forgotten(viewer: str, *, at: str = "20:20") -> ViewerForgotten:
    return ViewerForgotten(viewer_id=viewer, occurred_at=moment(at))


def stopped(
    viewer: str,
    video: str,
    *,
    at: str,
    seconds: float,
    duration: float | None = 6_000.0,
    session: str | None = None,
    state: Any = None,
) -> PositionUpdated:
    return PositionUpdated(
        viewer_id=viewer,
        video_id=video,
        position_seconds=float(seconds),
        duration_seconds=duration,
        session_id=session,
        state=state,
        occurred_at=moment(at),
    )


def recorded(
    events: Iterable[Event], *, partition: int = 0, first_offset: int = 0, every: timedelta = timedelta(seconds=1)
) -> list[Decoded]:
    """The events as one partition of the log holds them, one after the other from `first_offset` on."""
    return [
        Decoded(
            event,
            Recorded(
                Place(event.topic, partition, offset),
                round((EVENING + every * offset).timestamp() * 1_000),
                str(offset),
            ),
        )
        for offset, event in enumerate(events, start=first_offset)
    ]


def rows_after(projection: Projection, events: Sequence[Event], table: str | None = None) -> list[dict[str, Any]]:
    """The rows of `table` (the projection's own name if none is given) once all of `events` are folded."""
    sink = MemorySink(projection)
    for change in projection.fold(recorded(events)):
        sink.write(change)
    return [dict(row) for row in sink.rows(table or projection.name)]


def as_model(event: Event) -> Event:
    """The event itself, also where a struct stood in for it (`schemas.structs`)."""
    model = EVENTS[event.type]
    return model.model_validate({name: getattr(event, name) for name in model.model_fields})
