"""The search index: one document a film, holding what a person may look for."""

from collections.abc import Iterator

from projections.catalogue import metadata_of
from projections.changes import Change, Upsert
from projections.projection import Projection
from schemas.events import UploadAborted, UploadInitiated, VideoDeleted, VideoEvent, VideoTranscoded, VideoUploaded

search = Projection("search", version=1, topics=("videos",))


def _document(event: VideoEvent, **values: object) -> Upsert:
    return Upsert("videos", key={"video_id": event.video_id}, values=values)


@search.on
def announce(event: UploadInitiated) -> Iterator[Change]:
    yield _document(event, **metadata_of(event))


@search.on
def receive(event: VideoUploaded) -> Iterator[Change]:
    """A film is found from the moment its bytes are there."""
    yield _document(event, uploaded_at=event.occurred_at)


@search.on
def complete(event: VideoTranscoded) -> Iterator[Change]:
    yield _document(event, duration_seconds=event.duration_seconds)


@search.on
def delete(event: VideoDeleted) -> Iterator[Change]:
    """Marked, not dropped: a dropped document forgets its version, and an older write would bring it back."""
    yield _document(event, deleted=True)


@search.on
def abort(event: UploadAborted) -> Iterator[Change]:
    yield _document(event, deleted=True)
