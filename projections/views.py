"""The raw views: each view that counts, at its place in the log."""

from collections.abc import Iterator

from projections.changes import Change, Upsert
from projections.projection import Projection
from schemas.events import VideoViewed
from schemas.log import Recorded

views = Projection("views", version=1, topics=("views",), counts_once=True)


@views.on
def keep_view(event: VideoViewed, recorded: Recorded) -> Iterator[Change]:
    """Keyed by its place, since an id may count again once `once_within` has passed."""
    yield Upsert(
        "views",
        key={"log_partition": recorded.place.partition, "log_offset": recorded.place.offset},
        values={
            "view_id": event.view_id,
            "video_id": event.video_id,
            "viewer_id": event.viewer_id,
            "session_id": event.session_id,
            "watched_seconds": event.watched_seconds,
            "occurred_at": event.occurred_at,
        },
    )
