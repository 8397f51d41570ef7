"""A batch of months becomes few rows for the board, and means the same."""

from collections import Counter
from typing import Any, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from projections.changes import Change, Tally
from projections.occurrences import Occurrences
from projections.sinks.redis_board import Board, Edges, summed
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Limits, Rows
from projections.sinks.redis_windows import NAMES, ROLLING

KEYS = Keys("t_", "leaderboard", 1)
DAY = 24 * 60
NOW = 20_000 * DAY  # in minutes since 1970
MINUTE_MS = 60_000

counts = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(NOW - 400 * DAY, NOW + 90)), st.integers(1, 9), max_size=30
)
moments = st.integers(NOW - 40 * DAY, NOW + 40 * DAY)


def edges_at(minute: int) -> Edges:
    return tuple(window.edge_at(minute * MINUTE_MS) for window in ROLLING)


def board_that_knows(edges: Edges) -> Board:
    board = Board(cast(Redis, None), KEYS, Limits())
    board._edges = edges
    return board


def meaning(rows: Rows, edges: Edges) -> dict[str, dict[str, int]]:
    """What is added to each sorted set and each bucket."""
    names, step = summed(rows, edges, KEYS, "views/0")

    def added(number: int) -> dict[str, int]:
        return dict(zip(*step["sums"][number - 1], strict=True)) if number else {}

    tops = {name: added(number) for name, number in zip(NAMES, step["tops"], strict=True)}
    return tops | {names[key - 1]: added(number) for key, number in step["buckets"]}


def uncounted(counted: dict[tuple[str, int], int]) -> Tally:
    """The same, as a fold says it."""
    each = list(Counter(counted).elements())
    minutes = np.array([minute for _, minute in each], dtype=np.int64)
    return Tally("views", ("video_id", "minute"), Occurrences.of([film for film, _ in each], minutes))


def merged(board: Board, change: Change) -> dict[Any, Any]:
    rows: Rows = {}
    board.merge(rows, change)
    return rows


@given(counts, moments, st.integers(0, 40 * DAY))
def test_minutes_that_stand_for_others_mean_the_same_now_and_when_edges_have_moved(
    counted: dict[tuple[str, int], int], known: int, later: int
) -> None:
    change = Tally("views", ("video_id", "minute"), counted)
    few = merged(board_that_knows(edges_at(known)), change)
    assert merged(board_that_knows(edges_at(known)), uncounted(counted)) == few
    gathered = board_that_knows(edges_at(known)).condensed(uncounted(counted))
    assert merged(board_that_knows(edges_at(known + later)), gathered) == merged(
        board_that_knows(edges_at(known + later)), change
    )
    every = merged(board_that_knows((0,) * len(ROLLING)), change)
    assert set(every) == set(counted)
    for moment in (known, known + later):
        assert meaning(few, edges_at(moment)) == meaning(every, edges_at(moment))


def test_a_month_of_one_film_is_a_row_a_minute_an_hour_and_a_day() -> None:
    minutes = range(NOW - 30 * DAY, NOW)
    change = Tally("views", ("video_id", "minute"), {("a", minute): 1 for minute in minutes})
    rows = merged(board_that_knows(edges_at(NOW)), change)
    assert len(rows) < 60 + 7 * 24 + 30 + 3
    assert sum(rows.values()) == len(minutes)
