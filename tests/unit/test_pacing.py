"""A fetch is answered at once, but where much comes."""

from agents.fetching import FETCH_WAIT_MS
from agents.pacing import BUSY_WAIT_MS, MUCH_BYTES, QUIET_WAIT_MS, Answering, Pacing

AT_ONCE, MUCH, QUIET = Answering(1, FETCH_WAIT_MS), Answering(MUCH_BYTES, BUSY_WAIT_MS), Answering(1, QUIET_WAIT_MS)


def after(*moments: float) -> Pacing:
    """Something came at each."""
    pacing = Pacing()
    for moment in moments:
        pacing.came(moment)
    return pacing


def test_what_comes_now_and_then_is_answered_at_once() -> None:
    assert after(100.0).answering(100.0) == AT_ONCE
    assert after(100.0, 100.5).answering(100.5) == AT_ONCE


def test_where_much_comes_it_is_answered_with_what_has_come() -> None:
    assert after(100.0, 100.05).answering(100.05) == MUCH
    assert after(100.0, 100.05).answering(100.1) == MUCH


def test_whoever_was_busy_is_so_no_longer_when_nothing_has_come_for_a_moment() -> None:
    busy = after(100.0, 100.05)
    assert busy.answering(100.2) == AT_ONCE
    assert busy.answering(102.0) == QUIET


def test_a_partition_that_goes_on_is_not_quiet() -> None:
    pacing = after(100.0)
    assert pacing.answering(105.0) == QUIET
    pacing.resumed(105.0)
    assert pacing.answering(105.1) == AT_ONCE
