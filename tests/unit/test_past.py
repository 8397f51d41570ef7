"""What is answered as of a moment, against a plain look at what had been recorded by then."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agents.past import Past
from agents.replaying import Replay
from projections.counting import CLOCK_SKEW, hour_start
from projections.leaderboard import WINDOWS
from projections.queries.past import InTheFuture, settling_seconds
from projections.queries.statistics import start_of
from projections.queries.versions import Versions
from schemas.events import Event, VideoDeleted, VideoViewed
from schemas.partitions import partition_of
from tests.given import announced, deleted, transcoded, uploaded
from tests.small_log import SMALL, START, SmallLog

ONCE_WITHIN = timedelta(hours=6)
quick = hypothesis_settings(max_examples=50)


class Said(NamedTuple):
    """An event, and when it was recorded; a copied one was appended much later."""

    event: Event
    recorded_at: datetime
    is_copied: bool


def views_of(drawn: Sequence[tuple[str, int, int, int]], copied: int) -> list[Said]:
    """Of few films and few ids, so that some are sent again; each so many minutes after the one before, and so late."""
    said, at = [], START
    for number, (name, later_minutes, late_minutes, film) in enumerate(drawn):
        at += timedelta(minutes=later_minutes, milliseconds=number % 7)
        event: Event = VideoViewed(
            view_id=name, video_id=f"film-{film}", occurred_at=at - timedelta(minutes=late_minutes)
        )
        if film == 4:
            event = VideoDeleted(video_id=f"film-{late_minutes % 4}", occurred_at=at)
        said.append(Said(event, at, number < copied))
    return said


def log_of(said: Sequence[Said]) -> SmallLog:
    """Copies come first, appended in one go long after the last of them was recorded."""
    log = SmallLog()
    for event, recorded_at, is_copied in said:
        if is_copied:
            log.append(event, START + timedelta(days=400), recorded_at=recorded_at)
    for event, recorded_at, is_copied in said:
        if not is_copied:
            log.append(event, recorded_at)
    return log


def counting(said: Sequence[Said], moment: datetime) -> list[VideoViewed]:
    """The rule by its words, for what was recorded by `moment`."""
    counted: list[VideoViewed] = []
    seen: list[tuple[str, datetime]] = []
    for event, recorded_at, _ in said:
        if not isinstance(event, VideoViewed) or event.occurred_at > recorded_at + CLOCK_SKEW:
            continue
        again = any(view_id == event.view_id and recorded_at - at <= ONCE_WITHIN for view_id, at in seen)
        seen.append((event.view_id, recorded_at))
        if not again and recorded_at <= moment:
            counted.append(event)
    return counted


some_views = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.integers(0, 240),
        st.sampled_from([0, 0, 0, -1, -2, 50, 3_000]),
        st.integers(0, 4),
    ),
    max_size=25,
)
some_moments = st.integers(-10, 25 * 240).map(lambda minutes: START + timedelta(minutes=minutes))


@quick
@given(some_views, some_moments, st.booleans())
async def test_a_board_of_the_past_holds_what_had_been_recorded_by_then(
    drawn: list[tuple[str, int, int, int]], moment: datetime, is_copied: bool
) -> None:
    said = views_of(drawn, copied=len(drawn) if is_copied else 0)
    past = Past(Replay(log_of(said).open, SMALL), moment, Versions())
    counted = counting(said, moment)
    gone = {s.event.video_id for s in said if isinstance(s.event, VideoDeleted) and s.recorded_at <= moment}
    of_a_film = await past.views("film-0")
    for window in WINDOWS:
        start = start_of(window, moment)
        views = Counter(view.video_id for view in counted if start is None or view.occurred_at >= start)
        top = await past.top(10, window.name)  # type: ignore[arg-type]
        expected = sorted(((n, video) for video, n in views.items() if video not in gone), reverse=True)
        assert [(item.views, item.video_id) for item in top.items] == expected
        assert (top.from_, top.to, top.as_of, top.source) == (start, moment, moment, "log")
        assert getattr(of_a_film, window.name) == views["film-0"]
    hours = Counter(hour_start(view.occurred_at) for view in counted if view.video_id == "film-0")
    assert await past.history("film-0", "hour") == sorted(hours.items())


@quick
@given(some_views, some_moments, st.data())
async def test_what_is_recorded_later_changes_no_answer(
    drawn: list[tuple[str, int, int, int]], moment: datetime, data: st.DataObject
) -> None:
    said = views_of(drawn, copied=0)
    by_then = [item for item in said if item.recorded_at <= moment]
    early, late = (
        Past(Replay(log_of(by_then).open, SMALL), moment, Versions()),
        Past(Replay(log_of(said).open, SMALL), moment, Versions()),
    )
    timeframe = data.draw(st.sampled_from([window.name for window in WINDOWS]))
    assert await early.top(10, timeframe) == await late.top(10, timeframe)


async def test_a_view_that_the_clock_of_another_broker_put_in_order_is_not_missed() -> None:
    """A partition whose new leader's clock is behind has a later record with an earlier time."""
    log = SmallLog()
    neighbours = [name for name in "abcdefgh" if partition_of(name.encode(), 2) == 0]
    for name, second in zip(neighbours, (0, 30, 20), strict=False):
        view = VideoViewed(view_id=name, video_id=f"at-{second}", occurred_at=START)
        log.append(view, START + timedelta(seconds=second))
    past = Past(Replay(log.open, SMALL), START + timedelta(seconds=25), Versions())
    assert {item.video_id for item in (await past.top(10, "all_time")).items} == {"at-0", "at-20"}


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


async def test_a_film_is_there_from_its_announcement_to_its_deletion() -> None:
    log = SmallLog()
    steps: list[Callable[[str], Event]] = [announced, uploaded, transcoded, deleted]
    for minute, step in enumerate(steps):
        log.append(step("heat"), at(minute))
    found = [
        await Past(Replay(log.open, SMALL), at(minute) + timedelta(seconds=5), Versions()).films()
        for minute in range(-1, 4)
    ]
    assert [films["heat"].status if films else None for films in found] == [
        None,
        "PENDING",
        "PENDING",
        "COMPLETED",
        None,
    ]


async def test_before_the_logs_beginning_there_is_nothing() -> None:
    log = SmallLog()
    log.append(VideoViewed(view_id="a", video_id="heat", occurred_at=START), START)
    past = Past(Replay(log.open, SMALL), START - timedelta(milliseconds=1), Versions())
    assert (await past.top(10, "all_time")).items == []
    assert await past.films() == {}


def test_a_moment_of_the_future_is_refused_and_one_just_past_is_waited_for() -> None:
    with pytest.raises(InTheFuture):
        settling_seconds(START + timedelta(seconds=1), START)
    assert settling_seconds(START, START) == 1
    assert settling_seconds(START - timedelta(hours=1), START) == 0
