"""Views by the hour and by the day."""

from projections.statistics import statistics
from projections.views import views
from tests.given import moment, rows_after, viewed


def test_a_view_counts_in_the_hour_and_the_day_in_which_it_occurred() -> None:
    events = [viewed("heat", "1", at="20:59"), viewed("heat", "2", at="21:00"), viewed("heat", "3", at="21:59")]
    hours = [(row["start"], row["views"]) for row in rows_after(statistics, events, "hourly")]
    assert hours == [(moment("20:00"), 1), (moment("21:00"), 2)]
    assert [row["views"] for row in rows_after(statistics, events, "daily")] == [3]


def test_hours_and_days_are_those_of_utc() -> None:
    [row] = rows_after(statistics, [viewed("heat", at="2026-05-02T01:30:00+02:00")], "daily")
    assert row["start"] == moment("00:00")


def test_a_raw_view_lies_at_its_place_in_the_log() -> None:
    rows = rows_after(views, [viewed("heat", "1"), viewed("heat", "2")])
    assert [(row["log_partition"], row["log_offset"], row["view_id"]) for row in rows] == [(0, 0, "1"), (0, 1, "2")]
