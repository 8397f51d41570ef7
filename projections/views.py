"""The raw views: each view that counts, at its place in the log; and those that do not, each with the reason."""

from collections.abc import Iterator, Sequence

from projections.changes import Append, Change, Forget
from projections.counting import Counts, Duplicate, FromTheFuture, RuledOut, Verdict
from projections.projection import Projection, Refused
from schemas.columns import Events
from schemas.events import VideoViewed, ViewerForgotten
from schemas.log import moment_of

views = Projection("views", version=2, topics=("views", "viewers"), counts_once=True)

PLACE = ("log_partition", "log_offset")


@views.on
def keep_views(kept: Events[VideoViewed]) -> Iterator[Change]:
    """Keyed by its place, since an id may count again once `once_within` has passed."""
    columns = ("view_id", "video_id", "viewer_id", "session_id", "watched_seconds", "occurred_at", "recorded_at")
    partitions, offsets, times_ms = kept.partitions.tolist(), kept.offsets.tolist(), kept.times_ms.tolist()
    # The broker appends many in one millisecond.
    moments = {time_ms: moment_of(time_ms) for time_ms in set(times_ms)}
    yield Append(
        "views",
        PLACE,
        columns,
        [
            (
                partition,
                offset,
                view.view_id,
                view.video_id,
                view.viewer_id,
                view.session_id,
                view.watched_seconds,
                view.occurred_at,
                moments[time_ms],
            )
            for view, partition, offset, time_ms in zip(kept.each, partitions, offsets, times_ms, strict=True)
        ],
    )


@views.on_refused
def keep_refused(refused: Sequence[Refused]) -> Iterator[Change]:
    """So that a number can be explained: of a duplicate the offset of the earlier one, of one from the future by how much."""
    columns = ("view_id", "video_id", "reason", "earlier_offset", "ahead_seconds", "occurred_at", "recorded_at")
    yield Append(
        "refused_views",
        PLACE,
        columns,
        [
            (
                recorded.place.partition,
                recorded.place.offset,
                view.view_id,
                view.video_id,
                *_told(verdict),
                view.occurred_at,
                moment_of(recorded.recorded_at_ms),
            )
            for view, recorded, verdict in refused
        ],
    )


def _told(verdict: Verdict) -> tuple[str | None, int | None, float | None]:
    match verdict:
        case Duplicate(earlier_offset):
            return "duplicate", earlier_offset, None
        case FromTheFuture(ahead_seconds):
            return "future", None, ahead_seconds
        case RuledOut(reason):
            return reason, None, None
        case Counts():
            return None, None, None


@views.on
def forget_viewer(event: ViewerForgotten) -> Iterator[Change]:
    """The view still counts, and nobody knows whose it was; a session's id would tell which views were of one person."""
    yield Forget("views", key={"viewer_id": event.viewer_id}, blank=("viewer_id", "session_id"))
