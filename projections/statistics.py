"""Views by the hour and by the day, in UTC: what history is drawn from and what the leaderboard falls back to."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from projections.changes import Change, Tally
from projections.counting import HOUR_SECONDS, day_start, units_of
from projections.occurrences import Occurrences
from projections.projection import Projection
from schemas.columns import Events
from schemas.events import VideoViewed

statistics = Projection("statistics", version=1, topics=("views",), counts_once=True)


@statistics.on
def count_views(views: Events[VideoViewed]) -> Iterator[Change]:
    """A late view counts in the hour and the day in which it occurred."""
    hours = units_of(views.column("occurred_at"), HOUR_SECONDS)
    counted = Occurrences.of(views.column("video_id"), hours)
    starts = {hour: datetime.fromtimestamp(hour * HOUR_SECONDS, UTC) for hour in {hour for _, hour in counted}}
    days = {hour: day_start(start) for hour, start in starts.items()}
    daily: Counter[tuple[str, datetime]] = Counter()
    for (video_id, hour), number in counted.items():
        daily[video_id, days[hour]] += number
    hourly = {(video_id, starts[hour]): number for (video_id, hour), number in counted.items()}
    yield Tally("hourly", ("video_id", "start"), hourly)
    yield Tally("daily", ("video_id", "start"), daily)
