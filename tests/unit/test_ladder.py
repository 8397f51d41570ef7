from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.media.ladder import (
    LOWEST_RATE,
    SEGMENT_SECONDS,
    TOP_RATE,
    frames_per_segment,
    output_rate,
    rungs,
)

sides = st.integers(min_value=16, max_value=8192)
rates = st.fractions(min_value=Fraction(1, 100), max_value=1000, max_denominator=1001)
PAL = Fraction(25)


@given(sides, sides)
def test_no_rung_is_larger_than_its_source(width: int, height: int) -> None:
    assert all(rung.width <= width and rung.height <= height for rung in rungs(width, height, PAL))


@given(sides, sides)
def test_a_rung_is_named_for_its_short_side_unless_the_source_is_smaller(width: int, height: int) -> None:
    for rung in rungs(width, height, PAL):
        assert min(rung.width, rung.height) == min(int(rung.quality[:-1]), min(width, height) // 2 * 2)


@given(sides, sides)
def test_every_side_is_even(width: int, height: int) -> None:
    assert all(rung.width % 2 == rung.height % 2 == 0 for rung in rungs(width, height, PAL))


@given(sides, sides)
def test_each_rung_costs_less_than_the_one_above_it(width: int, height: int) -> None:
    peaks = [rung.video_peak for rung in rungs(width, height, PAL)]
    assert peaks == sorted(peaks, reverse=True)


@given(st.integers(240, 4320), st.integers(240, 4320))
def test_a_rung_keeps_the_shape_of_its_source(width: int, height: int) -> None:
    for rung in rungs(width, height, PAL):
        assert abs(rung.width - width * rung.height / height) <= 2 + width / height


@given(sides, sides)
def test_a_portrait_film_has_the_rungs_of_the_film_on_its_side(width: int, height: int) -> None:
    upright, lying = rungs(width, height, PAL), rungs(height, width, PAL)
    assert [(rung.quality, rung.width, rung.height) for rung in upright] == [
        (rung.quality, rung.height, rung.width) for rung in lying
    ]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, 1080, ["1080p 1920x1080", "720p 1280x720", "480p 854x480", "360p 640x360", "240p 426x240"]),
        (1280, 720, ["720p 1280x720", "480p 854x480", "360p 640x360", "240p 426x240"]),
        (720, 1280, ["720p 720x1280", "480p 480x854", "360p 360x640", "240p 240x426"]),
        (1280, 718, ["480p 856x480", "360p 642x360", "240p 428x240"]),
        (160, 121, ["240p 160x120"]),
    ],
)
def test_the_ladder_of_a_source(width: int, height: int, expected: list[str]) -> None:
    assert [f"{rung.quality} {rung.width}x{rung.height}" for rung in rungs(width, height, PAL)] == expected


def test_fast_motion_gets_more_bits() -> None:
    assert rungs(1280, 720, Fraction(60))[0].video_peak > rungs(1280, 720, Fraction(30))[0].video_peak


@given(rates)
def test_frames_go_neither_too_fast_nor_too_slow(rate: Fraction) -> None:
    assert LOWEST_RATE <= output_rate(rate, rate) <= TOP_RATE
    assert LOWEST_RATE <= output_rate(None, rate) <= TOP_RATE


@given(st.fractions(min_value=LOWEST_RATE, max_value=TOP_RATE, max_denominator=1001))
def test_a_constant_rate_is_kept(rate: Fraction) -> None:
    assert output_rate(rate, rate) == rate


@given(st.integers(1, 1000))
def test_a_faster_source_loses_every_other_frame_alike(rate: int) -> None:
    kept = output_rate(Fraction(rate), Fraction(rate))
    assert rate <= TOP_RATE or (rate / kept).denominator == 1


@pytest.mark.parametrize(
    ("typical", "expected"), [("29.98", "30000/1001"), ("30", "30"), ("26", "30000/1001"), ("33", "48")]
)
def test_a_changing_rate_becomes_a_standard_one(typical: str, expected: str) -> None:
    assert output_rate(None, Fraction(typical)) == Fraction(expected)


@given(st.fractions(min_value=LOWEST_RATE, max_value=TOP_RATE, max_denominator=1001))
def test_a_segment_lasts_its_time_and_less_than_half_as_much_again(rate: Fraction) -> None:
    assert SEGMENT_SECONDS <= frames_per_segment(rate) / rate < 1.5 * SEGMENT_SECONDS
