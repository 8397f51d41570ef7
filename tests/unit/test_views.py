"""When a view was, if nobody says."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.views import time_in
from schemas.bounds import EARLIEST, LATEST

NOW = datetime(2026, 5, 1, 20, 0, tzinfo=UTC)


def uuid7_at(made_at: datetime, rest: int = 0) -> str:
    milliseconds = (made_at - EARLIEST) // timedelta(milliseconds=1)
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | rest))


@given(st.datetimes(EARLIEST.replace(tzinfo=None), NOW.replace(tzinfo=None)), st.integers(0, 2**62 - 1))
def test_a_uuid7_tells_when_it_was_made_to_the_millisecond(naive: datetime, rest: int) -> None:
    made_at = naive.replace(tzinfo=UTC)
    told = time_in(uuid7_at(made_at, rest), NOW)
    assert told is not None
    assert timedelta(0) <= made_at - told < timedelta(milliseconds=1)


@given(st.integers(0, 2**48 - 1))
def test_no_time_in_an_id_leaves_the_bounds(milliseconds: int) -> None:
    told = time_in(str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)), NOW)
    assert told is None or EARLIEST <= told < LATEST


@pytest.mark.parametrize(
    "view_id", ["", "view-1", str(uuid.UUID(int=4 << 76 | 2 << 62)), uuid7_at(NOW + timedelta(hours=1))]
)
def test_other_ids_and_those_of_a_clock_ahead_tell_nothing(view_id: str) -> None:
    assert time_in(view_id, NOW) is None
