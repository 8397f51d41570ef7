"""Which views count: the window against a plain fold over the whole list, for any ids and times."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.counting import (
    CLOCK_SKEW,
    COUNTS,
    Duplicate,
    FromTheFuture,
    SeenIds,
    Verdict,
    day_start,
    hour_start,
    minute_of,
)
from schemas.events import VideoViewed
from schemas.log import Place, Recorded

WITHIN = timedelta(hours=6)
START = datetime(2026, 5, 1, 20, tzinfo=UTC)
HOUR_MS = 3_600_000

View = tuple[VideoViewed, Recorded]


def view(view_id: str, offset: int, after_ms: int, ahead_seconds: float = 0) -> View:
    """Recorded `after_ms` after the first hour began; it says that it occurred `ahead_seconds` later."""
    recorded_at = START + timedelta(milliseconds=after_ms)
    event = VideoViewed(view_id=view_id, video_id="heat", occurred_at=recorded_at + timedelta(seconds=ahead_seconds))
    return event, Recorded(Place("views", 0, offset), round(recorded_at.timestamp() * 1_000), view_id)


def plainly(views: Sequence[View]) -> list[Verdict]:
    """The rule by its words: no other of its id recorded in the six hours before, and not over a minute ahead."""
    verdicts: list[Verdict] = []
    for event, recorded in views:
        ahead = event.occurred_at.timestamp() - recorded.recorded_at_ms / 1_000
        if ahead > CLOCK_SKEW.total_seconds():
            verdicts.append(FromTheFuture(ahead))
            continue
        earlier = [
            other.place.offset
            for (before, other), verdict in zip(views, verdicts, strict=False)
            if before.view_id == event.view_id
            and not isinstance(verdict, FromTheFuture)
            and recorded.recorded_at_ms - other.recorded_at_ms <= WITHIN.total_seconds() * 1_000
        ]
        verdicts.append(Duplicate(earlier[-1]) if earlier else COUNTS)
    return verdicts


some_views = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.integers(0, 4 * HOUR_MS), st.sampled_from([0, 0, 0, 59, 3_600]), st.integers(1, 3)
    ),
    max_size=40,
)


def in_the_log(drawn: Sequence[tuple[str, int, float, int]]) -> list[View]:
    """Each drawn view so much later than the one before, with gaps between the offsets."""
    views: list[View] = []
    offset = after_ms = 0
    for view_id, later_ms, ahead_seconds, step in drawn:
        offset, after_ms = offset + step, after_ms + later_ms
        views.append(view(view_id, offset, after_ms, ahead_seconds))
    return views


@given(some_views)
def test_the_window_says_what_the_rule_says(drawn: list[tuple[str, int, float, int]]) -> None:
    views = in_the_log(drawn)
    seen = SeenIds(WITHIN, start_offset=0)
    assert [seen.judge(*one) for one in views] == plainly(views)


@given(some_views, st.data())
def test_a_window_refilled_from_the_span_before_says_the_same(
    drawn: list[tuple[str, int, float, int]], data: st.DataObject
) -> None:
    views = in_the_log(drawn)
    taken_over = data.draw(st.integers(0, len(views)))
    tail = views[taken_over:]
    first_ms = tail[0][1].recorded_at_ms - round(WITHIN.total_seconds() * 1_000) if tail else 0
    refilled = SeenIds(WITHIN, start_offset=0)
    for one in views[:taken_over]:
        if one[1].recorded_at_ms >= first_ms:
            refilled.judge(*one)
    assert [refilled.judge(*one) for one in tail] == plainly(views)[taken_over:]


@given(some_views, st.data())
def test_a_projection_that_comes_later_is_told_the_same(
    drawn: list[tuple[str, int, float, int]], data: st.DataObject
) -> None:
    views = in_the_log(drawn)
    ahead = data.draw(st.integers(0, len(views)))
    seen = SeenIds(WITHIN, start_offset=0)
    first = [seen.judge(*one) for one in views[:ahead]]
    answerable = [one for one in views if one[1].place.offset >= seen.answers_from]
    again = [seen.judge(*one) for one in answerable]
    assert first == plainly(views)[:ahead]
    assert again == plainly(views)[len(views) - len(answerable) :]


def test_a_view_before_what_the_window_remembers_is_no_guess() -> None:
    seen = SeenIds(WITHIN, start_offset=10)
    with pytest.raises(LookupError):
        seen.judge(*view("a", 9, 0))


def test_a_view_from_the_future_leaves_its_id_to_the_one_with_the_right_time() -> None:
    seen = SeenIds(WITHIN, start_offset=0)
    assert isinstance(seen.judge(*view("a", 0, 0, ahead_seconds=61)), FromTheFuture)
    assert seen.judge(*view("a", 1, 1_000)) is COUNTS


def test_a_view_a_minute_ahead_counts() -> None:
    assert SeenIds(WITHIN, start_offset=0).judge(*view("a", 0, 0, ahead_seconds=60)) is COUNTS


@given(some_views)
def test_ids_are_forgotten_within_twice_the_span(drawn: list[tuple[str, int, float, int]]) -> None:
    seen = SeenIds(WITHIN, start_offset=0)
    for index, (view_id, later_ms, _, _) in enumerate(drawn):
        seen.judge(*view(f"{view_id}-{index}", index, index * 4 * HOUR_MS + later_ms % 1_000))
        assert len(seen) <= 5


def test_buckets_begin_in_utc_whatever_offset_a_view_came_with() -> None:
    moment = datetime.fromisoformat("2026-05-02T01:30:30+05:30")
    assert hour_start(moment) == datetime(2026, 5, 1, 20, tzinfo=UTC)
    assert day_start(moment) == datetime(2026, 5, 1, tzinfo=UTC)
    assert minute_of(moment) == minute_of(datetime(2026, 5, 1, 20, 0, 59, tzinfo=UTC))
