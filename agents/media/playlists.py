"""HLS playlists as text (RFC 8216). Pure."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

START_SIDE = 480  # players begin with the first variant listed: good to look at, and quick to come


class Segment(NamedTuple):
    """A media segment as it was measured."""

    name: str
    duration_seconds: float
    size: int


class Variant(NamedTuple):
    """A line of the master playlist. Bandwidths in bits per second, `codecs` as in RFC 6381."""

    quality: str
    width: int
    height: int
    bandwidth: int
    average_bandwidth: int
    codecs: str
    frame_rate: Fraction


def target_duration(segments: Sequence[Segment]) -> int:
    """The longest segment in whole seconds, rounded to the nearest (§4.3.3.1)."""
    return max(1, math.floor(max(segment.duration_seconds for segment in segments) + 0.5))


def media_playlist(init: str, segments: Sequence[Segment]) -> str:
    """One rendition, complete. Names are relative to the playlist."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{target_duration(segments)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{init}"',
    ]
    for segment in segments:
        lines += [f"#EXTINF:{segment.duration_seconds:.6f},", segment.name]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def master_playlist(variants: Sequence[Variant]) -> str:
    """All renditions: the one to begin with first, then from the best down."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for variant in _in_starting_order(variants):
        lines += [
            f"#EXT-X-STREAM-INF:BANDWIDTH={variant.bandwidth},AVERAGE-BANDWIDTH={variant.average_bandwidth},"
            f"RESOLUTION={variant.width}x{variant.height},FRAME-RATE={float(variant.frame_rate):.3f},"
            f'CODECS="{variant.codecs}"',
            f"{variant.quality}/playlist.m3u8",
        ]
    return "\n".join([*lines, ""])


def _in_starting_order(variants: Sequence[Variant]) -> list[Variant]:
    best_first = sorted(variants, key=lambda variant: variant.width * variant.height, reverse=True)
    modest = [variant for variant in best_first if min(variant.width, variant.height) <= START_SIDE]
    start = modest[0] if modest else best_first[-1]
    return [start, *(variant for variant in best_first if variant is not start)]


def average_bandwidth(segments: Sequence[Segment]) -> int:
    """Bits per second over the whole rendition."""
    return math.ceil(
        8 * sum(segment.size for segment in segments) / sum(segment.duration_seconds for segment in segments)
    )


def peak_bandwidth(segments: Sequence[Segment]) -> int:
    """The largest bit rate of any run of segments that lasts 0.5 to 1.5 target durations (§4.1); of a shorter film, its average."""
    target = target_duration(segments)
    peak = average_bandwidth(segments)
    for first in range(len(segments)):
        duration, size = 0.0, 0
        for segment in segments[first:]:
            duration += segment.duration_seconds
            size += segment.size
            if duration > 1.5 * target:
                break
            if duration >= 0.5 * target:
                peak = max(peak, math.ceil(8 * size / duration))
    return peak


class Tile(NamedTuple):
    """How the pictures of a storyboard lie on a sheet; sizes in pixels."""

    width: int
    height: int
    columns: int
    rows: int


def storyboard(sheets: Sequence[str], count: int, interval_seconds: float, duration_seconds: float, tile: Tile) -> str:
    """A WebVTT track that says which part of which sheet shows each stretch of the film (`#xywh` as in Media Fragments)."""
    cues = ["WEBVTT"]
    for number in range(count):
        start = number * interval_seconds
        end = duration_seconds if number == count - 1 else (number + 1) * interval_seconds
        sheet, place = divmod(number, tile.columns * tile.rows)
        row, column = divmod(place, tile.columns)
        x, y = column * tile.width, row * tile.height
        cues.append(f"{_clock(start)} --> {_clock(end)}\n{sheets[sheet]}#xywh={x},{y},{tile.width},{tile.height}")
    return "\n\n".join([*cues, ""])


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
