"""Views by the hour and by the day, in UTC: what history is drawn from and what the leaderboard falls back to."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from projections.changes import Change, Increment
from projections.counting import HOUR_SECONDS, day_start
from projections.projection import Projection
from schemas.events import VideoViewed
from schemas.log import Recorded

statistics = Projection("statistics", version=1, topics=("views",), counts_once=True)


@statistics.on
def count_views(views: Sequence[tuple[VideoViewed, Recorded]]) -> Iterator[Change]:
    """A late view counts in the hour and the day in which it occurred."""
    hourly = Counter((view.video_id, view.occurred_at.timestamp() // HOUR_SECONDS) for view, _ in views)
    daily: Counter[tuple[str, datetime]] = Counter()
    for (video_id, hour), number in hourly.items():
        start = datetime.fromtimestamp(hour * HOUR_SECONDS, UTC)
        daily[video_id, day_start(start)] += number
        yield Increment("hourly", key={"video_id": video_id, "start": start}, by=number)
    for (video_id, start), number in daily.items():
        yield Increment("daily", key={"video_id": video_id, "start": start}, by=number)
