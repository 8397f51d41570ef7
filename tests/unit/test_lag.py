"""Lag: how much is not folded, how old it is, and what that makes of a partition."""

import pytest

from agents.lag import Lag, State


@pytest.mark.parametrize(
    ("next_offset", "seconds", "state"),
    [(10, 0.0, "healthy"), (12, 0.0, "healthy"), (9, 4.9, "healthy"), (9, 5.0, "behind"), (0, None, "behind")],
)
def test_behind_is_who_has_not_folded_what_is_older_than_a_moment(
    next_offset: int, seconds: float | None, state: State
) -> None:
    assert Lag("views", 1, "views", 3, next_offset, 10, seconds).state == state


def test_a_checkpoint_beyond_the_end_that_was_asked_before_is_no_lag() -> None:
    assert Lag("views", 1, "views", 3, 12, 10, 0.0).lag_events == 0
