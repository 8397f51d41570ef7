"""The windows as the board in Redis keeps them: which buckets a minute lies in, and which windows share them."""

from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from projections.leaderboard import WINDOWS, Window
from schemas.log import EPOCH

MINUTE = timedelta(minutes=1)
MINUTE_MS = 60_000
SPAN_NAMES = {timedelta(minutes=1): "minute", timedelta(hours=1): "hour", timedelta(days=1): "day"}


class Rolling(NamedTuple):
    """A window that rolls: the newest `buckets` buckets of `minutes` each."""

    name: str
    minutes: int
    buckets: int

    def edge_at(self, moment_ms: int) -> int:
        """The number of its first bucket at this moment, counted from 1970."""
        return max(0, moment_ms // (self.minutes * MINUTE_MS) - self.buckets + 1)

    def start(self, bucket: int) -> datetime:
        """When this bucket begins."""
        return EPOCH + bucket * self.minutes * MINUTE


class Span(NamedTuple):
    """Buckets of one length, and the windows made of them, the shortest first."""

    name: str
    minutes: int
    windows: tuple[Rolling, ...]


def _spans() -> tuple[Span, ...]:
    def length(window: Window) -> timedelta:
        return window.bucket or timedelta()

    spans = []
    for bucket, windows in groupby(
        sorted((w for w in WINDOWS if w.bucket), key=lambda w: (length(w), w.buckets)), length
    ):
        minutes = bucket // MINUTE
        rolling = tuple(Rolling(window.name, minutes, window.buckets) for window in windows)
        spans.append(Span(SPAN_NAMES[bucket], minutes, rolling))
    return tuple(spans)


SPANS = _spans()
ROLLING = tuple(window for span in SPANS for window in span.windows)
ENDLESS = tuple(window.name for window in WINDOWS if window.bucket is None)
NAMES = tuple(window.name for window in ROLLING) + ENDLESS
