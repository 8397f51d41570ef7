"""A rule leaves views out, and what would move by it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.supposing import moved
from projections.counting import COUNTS, RuledOut
from projections.leaderboard import leaderboard
from projections.positions import positions
from projections.rule import Rule
from projections.sinks.memory import MemorySink
from projections.views import views
from schemas.events import VideoViewed
from tests.given import EVENING, recorded

LONG = Rule(watched_at_least_seconds=30)
HONEST = Rule(without_viewers=frozenset({"bot"}))


def view(number: int, *, viewer: str | None = None, watched: float | None = None, video: str = "heat") -> VideoViewed:
    return VideoViewed(
        view_id=f"view-{number}", video_id=video, occurred_at=EVENING, viewer_id=viewer, watched_seconds=watched
    )


def test_a_view_that_was_watched_too_short_or_does_not_say_is_left_out() -> None:
    assert [LONG.verdict(view(n, watched=watched)) for n, watched in enumerate((29.9, None, 30.0))] == [
        RuledOut("too-short"),
        RuledOut("too-short"),
        COUNTS,
    ]


def test_a_listed_viewer_is_left_out_and_nobody_else() -> None:
    assert [HONEST.verdict(view(n, viewer=viewer)) for n, viewer in enumerate(("bot", "ann", None))] == [
        RuledOut("viewer-left-out"),
        COUNTS,
        COUNTS,
    ]


@pytest.mark.parametrize("conditions", [{}, {"watched_at_least_seconds": -1}, {"without": ["bot"]}])
def test_a_rule_that_says_nothing_or_something_unknown_is_refused(conditions: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate(conditions)


def test_a_rule_is_kept_as_json_and_read_back() -> None:
    rule = Rule(watched_at_least_seconds=30, without_viewers=frozenset({"bot", "spider"}))
    assert Rule.model_validate(rule.model_dump(mode="json")) == rule


def test_what_counts_no_views_takes_no_rule() -> None:
    with pytest.raises(TypeError, match="positions counts no views"):
        positions.at(2, LONG)


some_views = st.lists(st.tuples(st.sampled_from(["ann", "bot", None]), st.sampled_from([None, 1.0, 40.0])), max_size=20)


@given(drawn=some_views, batch=st.integers(1, 20))
def test_a_version_with_a_rule_is_the_plain_fold_of_what_the_rule_leaves(
    drawn: list[tuple[str | None, float | None]], batch: int
) -> None:
    rule = Rule(watched_at_least_seconds=30, without_viewers=frozenset({"bot"}))
    events = [view(n, viewer=viewer, watched=watched) for n, (viewer, watched) in enumerate(drawn)]
    log = recorded(events)
    left = [item for item in log if rule.verdict(item.event) is COUNTS]  # type: ignore[arg-type]
    for fold in (views, leaderboard):
        ruled, plain = MemorySink(fold), MemorySink(fold)
        for first in range(0, len(log), batch):
            for change in fold.at(9, rule).fold(log[first : first + batch]):
                ruled.write(change)
        for change in fold.fold(left):
            plain.write(change)
        assert ruled.rows("views") == plain.rows("views")
        if fold is views:
            reasons = [row["reason"] for row in ruled.rows("refused_views")]
            assert len(reasons) == len(log) - len(left)


def test_films_are_ranked_as_a_board_ranks_and_those_that_fall_out_come_last() -> None:
    now, then = {"a": 5, "b": 4, "c": 3, "d": 1}, {"b": 4, "c": 3, "d": 3}
    assert [(film.video_id, film.rank_then, film.rank_now, film.climbs) for film in moved(now, then, 2)] == [
        ("b", 1, 2, 1),
        ("d", 2, 4, 2),
        ("a", None, 1, None),
    ]
