"""A fetch is made at once, but where records come one after the other."""

from agents.fetching import FETCH_WAIT_MS
from agents.pacing import MUCH, QUIET_WAIT_MS, REST_SECONDS, SHORT_REST_SECONDS, Pacing


def after(*moments: float, records: int = 1) -> Pacing:
    """So many came at each."""
    pacing = Pacing()
    for moment in moments:
        pacing.came(moment, records)
    return pacing


def rest(pacing: Pacing, now: float) -> float:
    return round(max(0.0, pacing.rest_until - now), 6)


def test_what_comes_now_and_then_is_fetched_at_once() -> None:
    assert rest(after(100.0), 100.0) == 0
    assert rest(after(100.0, 100.5), 100.5) == 0


def test_where_records_come_one_after_the_other_they_gather_for_a_moment() -> None:
    assert rest(after(100.0, 100.05), 100.05) == REST_SECONDS
    assert rest(after(100.0, 100.05), 100.06) == round(REST_SECONDS - 0.01, 6)
    assert rest(after(100.0, 100.05), 102.0) == 0


def test_what_somebody_waits_for_hardly_rests_and_lets_the_rest_be() -> None:
    pacing = after(100.0, 100.05)
    assert pacing.hurry_from == 100.05 + SHORT_REST_SECONDS
    pacing.hurried(100.08)
    assert pacing.hurry_from == 100.08 + SHORT_REST_SECONDS
    assert pacing.rest_until == 100.05 + REST_SECONDS


def test_where_there_is_more_nobody_rests() -> None:
    assert rest(after(100.0, 100.05, records=MUCH), 100.05) == 0


def test_the_broker_waits_long_where_nothing_comes() -> None:
    assert after(100.0).wait_ms(100.5) == FETCH_WAIT_MS
    assert after(100.0).wait_ms(105.0) == QUIET_WAIT_MS


def test_a_partition_that_goes_on_is_not_quiet() -> None:
    pacing = after(100.0)
    pacing.resumed(105.0)
    assert pacing.wait_ms(105.1) == FETCH_WAIT_MS
