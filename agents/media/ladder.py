"""The ladder: which renditions a film gets, never larger than its source, and how fast its frames go. Pure."""

import math
from fractions import Fraction
from typing import NamedTuple

SEGMENT_SECONDS = 4  # short enough to start and switch fast, long enough for few requests
TOP_RATE = 60  # frames per second; a faster source is halved, thirded, …
LOWEST_RATE = 5  # a slower source has its frames repeated, so that a segment is never a single frame
STANDARD_RATES = tuple(
    Fraction(rate) for rate in (5, 10, 12, 15, 20, "24000/1001", 24, 25, "30000/1001", 30, 48, 50, "60000/1001", 60)
)
SAME_RATE = 0.01  # rates nearer than this are one rate, measured from clocks that round
SMOOTH_RATE = 30  # above it a rung gets more bits
SMOOTH_FACTOR = 1.5


class Step(NamedTuple):
    """One step of the ladder by its short side. `peak` is the video's peak in bits per second, for 16:9 at up to 30 frames a second."""

    short_side: int
    peak: int
    audio: int


STEPS = (
    Step(1080, 5_000_000, 160_000),
    Step(720, 2_800_000, 128_000),
    Step(480, 1_400_000, 128_000),
    Step(360, 800_000, 96_000),
    Step(240, 400_000, 96_000),
)


class Rung(NamedTuple):
    """One rendition: its name, its size in square pixels, and its peaks in bits per second."""

    quality: str
    width: int
    height: int
    video_peak: int
    audio_rate: int


def rungs(width: int, height: int, rate: Fraction) -> list[Rung]:
    """The ladder of a film shown at `width` × `height` square pixels, the best rung first.

    A rung is named for its short side, which is never above the source's, so a portrait film of 720 × 1280 has a 720p. A film smaller
    than the lowest step has that step alone, at its own size.
    """
    short_side = min(width, height)
    fitting = [step for step in STEPS if step.short_side <= short_side] or [STEPS[-1]]
    return [_rung(step, width, height, rate) for step in fitting]


def _rung(step: Step, width: int, height: int, rate: Fraction) -> Rung:
    scale = min(Fraction(1), Fraction(step.short_side, min(width, height)))
    rung_width, rung_height = _even(width * scale, width), _even(height * scale, height)
    area = Fraction(rung_width * rung_height, step.short_side * step.short_side * 16 // 9)
    faster = SMOOTH_FACTOR if rate > SMOOTH_RATE else 1
    peak = max(100_000, round(step.peak * area * Fraction(faster)))
    return Rung(f"{step.short_side}p", rung_width, rung_height, peak, step.audio)


def _even(side: Fraction, limit: int) -> int:
    """The nearest even number not above `limit`: 4:2:0 holds one colour sample for two pixels by two."""
    return max(2, min(2 * round(side / 2), limit // 2 * 2))


def output_rate(constant: Fraction | None, typical: Fraction) -> Fraction:
    """Frames per second of every rung: the source's where it is `constant`, else the standard rate at or above what is `typical`."""
    if constant is not None:
        rate = constant
    else:
        nearest = min(STANDARD_RATES, key=lambda rate: abs(rate / typical - 1))
        above = next((rate for rate in STANDARD_RATES if rate >= typical), typical)
        rate = nearest if abs(nearest / typical - 1) < SAME_RATE else above
    if rate > TOP_RATE:
        rate /= math.ceil(rate / TOP_RATE)
    if rate < LOWEST_RATE:
        rate *= math.ceil(LOWEST_RATE / rate)
    return rate


def frames_per_segment(rate: Fraction) -> int:
    """Frames in each segment but the last: at least SEGMENT_SECONDS of them, so that a cut falls on each key frame and nowhere else."""
    return math.ceil(SEGMENT_SECONDS * rate)
