from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.media.ladder import LOWEST_RATE, TOP_RATE
from agents.media.probe import Rejected, frame_rate


def header(r_frame_rate: str = "0/0", avg_frame_rate: str = "0/0") -> dict[str, str]:
    return {"r_frame_rate": r_frame_rate, "avg_frame_rate": avg_frame_rate}


@given(
    st.lists(st.floats(0, 43_200), min_size=1, max_size=50, unique=True), st.sampled_from(["0/0", "25/1", "90000/1"])
)
def test_whatever_the_times_frames_go_neither_too_fast_nor_too_slow(times: list[float], announced: str) -> None:
    rate, _ = frame_rate(np.unique(times), header(announced))
    assert LOWEST_RATE <= rate <= TOP_RATE


@pytest.mark.parametrize("rate", ["24000/1001", "25/1", "30000/1001", "50/1"])
def test_a_clock_of_milliseconds_does_not_make_a_constant_rate_a_changing_one(rate: str) -> None:
    times = np.round(np.arange(200) / float(Fraction(rate)), 3)
    assert frame_rate(times, header(r_frame_rate=rate)) == (Fraction(rate), True)


def test_a_header_that_tells_the_rate_of_fields_is_not_believed() -> None:
    assert frame_rate(np.arange(100) / 25, header("50/1", "25/1")) == (25, True)


def test_a_rate_that_no_header_tells_is_a_standard_one() -> None:
    assert frame_rate(np.round(np.arange(100) * 0.0401, 4), header()) == (25, True)


def test_a_rate_that_changes_is_called_changing() -> None:
    times = np.concatenate([np.arange(50) / 30, 50 / 30 + np.arange(50) / 10])
    assert not frame_rate(times, header("30/1", "15/1"))[1]


def test_a_reason_holds_nothing_that_cannot_be_shown() -> None:
    assert Rejected("bad\x00file\x1b[31m\n").reason == "badfile[31m"
