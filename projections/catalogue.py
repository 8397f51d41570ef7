"""The catalogue: what films there are, and how far each has come."""

from collections.abc import Iterator
from enum import IntEnum

from projections.changes import Change, Upsert
from projections.projection import Projection
from schemas.events import (
    Event,
    Metadata,
    TranscodeFailed,
    TranscodeProgressed,
    UploadAborted,
    UploadInitiated,
    VideoDeleted,
    VideoEvent,
    VideoTranscoded,
    VideoUploaded,
)

PENDING, PROCESSING, COMPLETED, FAILED = "PENDING", "PROCESSING", "COMPLETED", "FAILED"

catalogue = Projection("catalogue", version=1, topics=("videos",))


class Stage(IntEnum):
    """How far one claim of a job has come."""

    PROCESSING = 1
    FAILED = 2
    COMPLETED = 3


def stage_order(claim: int, stage: Stage) -> int:
    """A number that grows with the claim, then with the stage: a worker whose claim was taken over changes nothing any more."""
    return claim * len(Stage) + stage


def metadata_of(event: Metadata) -> dict[str, object]:
    """What the uploader said of the film."""
    return {name: getattr(event, name) for name in Metadata.model_fields}


def _video(event: VideoEvent, newest_by: str | None = None, /, **values: object) -> Upsert:
    return Upsert("videos", key={"video_id": event.video_id}, values=values, newest_by=newest_by)


@catalogue.on
def announce(event: UploadInitiated) -> Iterator[Change]:
    yield _video(
        event,
        **metadata_of(event),
        filename=event.filename,
        size=event.size,
        source_key=event.object_key,
        initiated_at=event.occurred_at,
    )
    yield _video(event, "stage", stage=0, status=PENDING, progress=0.0)


@catalogue.on
def receive(event: VideoUploaded) -> Iterator[Change]:
    """The bytes are there: from now on it is a film, and there is work for a media worker."""
    yield _video(
        event,
        source_key=event.object_key,
        size=event.size,
        media_type=event.media_type,
        source_etag=event.etag,
        uploaded_at=event.occurred_at,
    )
    yield _video(event, "stage", stage=0, status=PENDING, progress=0.0)


@catalogue.on
def progress(event: TranscodeProgressed) -> Iterator[Change]:
    stage = stage_order(event.claim, Stage.PROCESSING)
    yield _video(event, "stage", stage=stage, status=PROCESSING, progress=event.progress)


@catalogue.on
def complete(event: VideoTranscoded) -> Iterator[Change]:
    yield _video(
        event,
        "stage",
        stage=stage_order(event.claim, Stage.COMPLETED),
        status=COMPLETED,
        progress=1.0,
        error=None,
        hls_prefix=event.prefix,
        duration_seconds=event.duration_seconds,
        width=event.width,
        height=event.height,
        variants=[variant.model_dump() for variant in event.variants],
        thumbnail=event.thumbnail,
        storyboard=event.storyboard,
        passport=event.passport,
        completed_at=event.occurred_at,
    )


@catalogue.on
def fail(event: TranscodeFailed) -> Iterator[Change]:
    stage = stage_order(event.claim, Stage.FAILED)
    yield _video(event, "stage", stage=stage, status=FAILED, error=event.reason)


def _withdraw(event: Event) -> Iterator[Change]:
    assert isinstance(event, VideoEvent)
    yield _video(event, deleted_at=event.occurred_at)


@catalogue.on
def delete(event: VideoDeleted) -> Iterator[Change]:
    """A deleted film keeps its row, so that nothing that arrives later revives it."""
    yield from _withdraw(event)


@catalogue.on
def abort(event: UploadAborted) -> Iterator[Change]:
    yield from _withdraw(event)
