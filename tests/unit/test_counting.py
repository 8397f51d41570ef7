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
from schemas.columns import Events
from schemas.decoded import Decoded
from schemas.events import VideoViewed, ViewRetried
from schemas.log import MILLISECOND, Place, Recorded, milliseconds_of, moment_of

WITHIN = timedelta(hours=6)
START = datetime(2026, 5, 1, 20, tzinfo=UTC)
HOUR_MS = 3_600_000

View = tuple[VideoViewed, Recorded]
Event = tuple[VideoViewed | ViewRetried, Recorded]


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


some_lives = st.lists(
    st.tuples(
        st.sampled_from(["view", "view", "parked", "retry"]), st.sampled_from("abc"), st.integers(0, 2 * HOUR_MS)
    ),
    max_size=40,
)


def counted_plainly(log: Sequence[Event]) -> list[bool]:
    """For each view whether it counts: no record with its id was known from the six hours before, a retried one as of when it was
    recorded."""
    known: list[tuple[str, int]] = []
    counted = []
    for event, recorded in log:
        at_ms = recorded.recorded_at_ms
        if isinstance(event, ViewRetried):
            at_ms = milliseconds_of(event.recorded_at)
        else:
            near = (name == event.view_id and at_ms - other <= WITHIN // MILLISECOND for name, other in known)
            counted.append(not any(near))
        known.append((event.view_id, at_ms))
    return counted


@given(some_lives, st.data())
def test_a_view_that_was_parked_is_known_from_its_retry_on_as_of_when_it_was_recorded(
    drawn: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    log: list[Event] = []
    parked: list[Event] = []
    after_ms = 0
    for offset, (what, view_id, later_ms) in enumerate(drawn):
        after_ms += later_ms
        event, recorded = view(view_id, offset, after_ms)
        if what == "parked":
            parked.append((event, recorded))
        elif what == "view" or not parked:
            log.append((event, recorded))
        else:
            first, at = parked.pop(data.draw(st.integers(0, len(parked) - 1)))
            log.append((retried(first, at, recorded), recorded))
    seen = SeenIds(WITHIN, start_offset=0)
    counted: list[bool] = []
    first = 0
    while first < len(log):
        end = data.draw(st.integers(first + 1, len(log)))
        events = Events.of([Decoded(*one) for one in log[first:end]])
        refused = seen.refusals(events)
        if events.offsets[0] >= seen.answers_from:
            assert seen.refusals(events) == refused  # as another projection is told that shares the window
        counted += [n not in refused for n, event in enumerate(events.each) if not isinstance(event, ViewRetried)]
        first = end
    assert counted == counted_plainly(log)


def retried(parked: VideoViewed, at: Recorded, here: Recorded) -> ViewRetried:
    return ViewRetried(
        occurred_at=moment_of(here.recorded_at_ms),
        view_id=parked.view_id,
        record=at.place.id,
        recorded_at=moment_of(at.recorded_at_ms),
        decision=0,
        projections=["views"],
    )


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
