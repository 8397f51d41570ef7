"""Top films over six rolling windows, and each film's views in them."""

from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

from projections.changes import Change, Tally, Upsert
from projections.counting import MINUTE_SECONDS, units_of
from projections.occurrences import Occurrences
from projections.projection import Projection
from schemas.columns import Events
from schemas.events import VideoDeleted, VideoViewed


class Window(NamedTuple):
    """A rolling window: the newest `buckets` buckets of `bucket` each, the one that is still open included. No bucket: for all time."""

    name: str
    bucket: timedelta | None = None
    buckets: int = 0


WINDOWS = (
    Window("hour", timedelta(minutes=1), 60),
    Window("day", timedelta(hours=1), 24),
    Window("week", timedelta(hours=1), 7 * 24),
    Window("month", timedelta(days=1), 30),
    Window("year", timedelta(days=1), 365),
    Window("all_time"),
)

leaderboard = Projection("leaderboard", version=1, topics=("views", "videos"), counts_once=True)


@leaderboard.on
def count_views(views: Events[VideoViewed]) -> Iterator[Change]:
    """Views of a film in the minute in which they occurred; the sink adds them to every window that still holds that minute."""
    minutes = units_of(views.column("occurred_at"), MINUTE_SECONDS)
    yield Tally("views", ("video_id", "minute"), Occurrences.of(views.column("video_id"), minutes))


@leaderboard.on
def hide_video(event: VideoDeleted) -> Iterator[Change]:
    """Deleted films are a set that only grows, applied when the board is read: a view replayed after a delete revives nothing."""
    yield Upsert("deleted", key={"video_id": event.video_id}, values={})
