"""Where a viewer stopped, whatever the order in which it is heard."""

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.positions import CREDITS_SHARE, in_credits, positions
from projections.resume import resume
from schemas.events import PositionUpdated
from tests.given import EVENING, rows_after, stopped

updates = st.lists(
    st.builds(
        PositionUpdated,
        viewer_id=st.just("ann"),
        video_id=st.sampled_from(["heat", "alien"]),
        position_seconds=st.floats(0, 6_000),
        duration_seconds=st.none() | st.just(6_000.0),
        session_id=st.none() | st.sampled_from(["phone", "tv"]),
        state=st.none() | st.sampled_from(["playing", "paused", "stopped"]),
        # Two updates of one moment have no order but the log's.
        occurred_at=st.integers(0, 10**6).map(lambda ms: EVENING + timedelta(milliseconds=ms)),
    ),
    max_size=8,
    unique_by=lambda update: update.occurred_at,
)


def answer(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The session that answers: the one that moved last."""
    return max(rows, key=lambda row: (row.get("moved_at") is not None, row.get("moved_at") or row["updated_at"]))


@given(updates, st.randoms())
def test_the_rows_are_the_same_whatever_the_arrival_order(given_updates: list[PositionUpdated], random: Any) -> None:
    shuffled = random.sample(given_updates, len(given_updates))
    assert rows_after(positions, shuffled) == rows_after(positions, given_updates)


@given(updates)
def test_resume_remembers_what_positions_remember(given_updates: list[PositionUpdated]) -> None:
    assert rows_after(resume, given_updates) == rows_after(positions, given_updates)


def test_the_latest_update_wins_whatever_the_arrival_order() -> None:
    early, late = stopped("ann", "heat", at="20:10", seconds=600), stopped("ann", "heat", at="21:40", seconds=5_000)
    assert rows_after(positions, [late, early]) == rows_after(positions, [early, late])
    assert rows_after(positions, [late, early])[0]["position_seconds"] == 5_000


def test_a_paused_session_never_overwrites_one_that_moves() -> None:
    phone = stopped("ann", "heat", at="21:00", seconds=3_000, session="phone", state="playing")
    tv = stopped("ann", "heat", at="20:00", seconds=600, session="tv", state="playing")
    still_paused = stopped("ann", "heat", at="23:00", seconds=600, session="tv", state="paused")
    for order in permutations([phone, tv, still_paused]):
        assert answer(rows_after(positions, list(order)))["position_seconds"] == 3_000


def test_a_session_that_pauses_keeps_the_position_it_paused_at() -> None:
    playing = stopped("ann", "heat", at="20:10", seconds=590, session="tv", state="playing")
    paused = stopped("ann", "heat", at="20:11", seconds=597, session="tv", state="paused")
    assert answer(rows_after(positions, [paused, playing]))["position_seconds"] == 597


def test_stopping_in_the_credits_completes_the_film() -> None:
    assert rows_after(positions, [stopped("ann", "heat", at="21:40", seconds=5_900)])[0]["completed"] is True


@pytest.mark.parametrize(("position", "duration"), [(100.0, None), (0.0, 0.0), (94.9, 100.0)])
def test_before_the_credits_nothing_is_completed(position: float, duration: float | None) -> None:
    assert not in_credits(position, duration)


def test_the_credits_begin_at_their_share_of_the_film() -> None:
    assert in_credits(100.0 * (1 - CREDITS_SHARE), 100.0)
