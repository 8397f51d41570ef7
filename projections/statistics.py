"""Views by the hour and by the day, in UTC: what history is drawn from and what the leaderboard falls back to."""

from collections.abc import Iterator

from projections.changes import Change, Increment
from projections.counting import day_start, hour_start
from projections.projection import Projection
from schemas.events import VideoViewed

statistics = Projection("statistics", version=1, topics=("views",), counts_once=True)


@statistics.on
def count_view(event: VideoViewed) -> Iterator[Change]:
    """A late view counts in the hour and the day in which it occurred."""
    yield Increment("hourly", key={"video_id": event.video_id, "start": hour_start(event.occurred_at)})
    yield Increment("daily", key={"video_id": event.video_id, "start": day_start(event.occurred_at)})
