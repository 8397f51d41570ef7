"""Views by the hour and by the day, in UTC: what history is drawn from and what the leaderboard falls back to."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from projections.changes import Change, Tally
from projections.counting import HOUR_SECONDS, units_of
from projections.occurrences import Occurrences
from projections.projection import Projection
from schemas.columns import Events
from schemas.events import VideoViewed
from schemas.log import EPOCH

HOURS_OF_A_DAY = 24

statistics = Projection("statistics", version=1, topics=("views",), counts_once=True)


@statistics.on
def count_views(views: Events[VideoViewed]) -> Iterator[Change]:
    """A late view counts in the hour and the day in which it occurred."""
    hours = units_of(views.column("occurred_at"), HOUR_SECONDS)
    hourly = Occurrences.of(views.column("video_id"), hours, _start_of_hour)
    yield Tally("hourly", ("video_id", "start"), hourly)
    yield Tally("daily", ("video_id", "start"), hourly.at(hours // HOURS_OF_A_DAY, _start_of_day))


def _start_of_hour(hour: int) -> datetime:
    return EPOCH + timedelta(hours=hour)


def _start_of_day(day: int) -> datetime:
    return EPOCH + timedelta(days=day)
