"""What a file is, found by reading all of it once: streams, sizes, rates, true lengths; or why it is no film that we can show."""

import json
import re
from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.media.ffmpeg import (
    MAX_DURATION_SECONDS,
    MAX_PACKETS,
    MAX_PIXELS,
    MAX_SIDE,
    reading,
)
from agents.media.ladder import SAME_RATE, output_rate
from agents.media.sandbox import LimitExceeded, Limits, Sandbox, ToolFailed

MOST_LETTERS = 1_000  # of a reason
SMALLEST_SIDE = 16  # pixels: one block of the codec
HDR_TRANSFERS = {"smpte2084", "arib-std-b67"}
INTERLACED = {"tt", "bb", "tb", "bt"}
MISSING_SHARE, MISSING_SECONDS = 0.05, 1.0  # how much of its announced length a file may lack
SHORTEST_SECONDS = 0.0001  # between two frames
SLOWEST_RATE = Fraction(1, 1000)  # frames per second; below it a rate is rounded up
LONGER_SOUND_SECONDS = 0.5  # sound this much longer than the picture is kept, over the last frame
READ_LIMITS = Limits(cpu_seconds=600, wall_seconds=900, quiet_seconds=120)
BEGINNINGS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"Rar!", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#EXTM3U", "a playlist, which only names other files"),
)


class Rejected(Exception):
    """The file cannot become a film; `reason` is for the person who uploaded it."""

    def __init__(self, reason: str) -> None:
        # A decoder's own words may hold anything.
        self.reason = "".join(letter for letter in reason if letter.isprintable())[:MOST_LETTERS]
        super().__init__(self.reason)


class Sound(NamedTuple):
    """The audio stream that is heard; times in seconds on the file's own clock."""

    stream: int
    codec: str
    channels: int
    sample_rate: int
    start: float
    end: float


class Source(NamedTuple):
    """A film as it was found. `width` and `height` are as shown: square pixels, rotation applied. `start` is on the file's own clock."""

    demuxer: str
    stream: int
    codec: str
    width: int
    height: int
    rotation: int
    pixel_format: str
    transfer: str
    interlaced: bool
    rate: Fraction
    constant_rate: bool
    packets: int
    start: float
    picture_seconds: float
    duration_seconds: float
    sound: Sound | None
    notes: tuple[str, ...]

    @property
    def hdr(self) -> bool:
        """Made for screens brighter than most: it must be tone-mapped."""
        return self.transfer in HDR_TRANSFERS

    @property
    def rgb(self) -> bool:
        """Holds red, green and blue, no luma and chroma."""
        return self.pixel_format.startswith(
            ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "gray", "mono")
        )


async def probe(sandbox: Sandbox, job: Path) -> Source:
    """What `job`/source is. Raises Rejected when it is no film that we can show."""
    described, errors = await _describe(sandbox, job)
    streams = described.get("streams", [])
    demuxer = described["format"]["format_name"].split(",")[0]
    picture, sound = _best_picture(streams), _best_sound(streams)
    if picture is None:
        raise Rejected("This file has sound but no picture." if sound else _unreadable(job))
    _check_picture(picture, errors)
    indexes = [stream["index"] for stream in (picture, sound) if stream]
    packets = await _read_packets(sandbox, job, demuxer, indexes)
    frames = packets[picture["index"]]
    if not len(frames.times):
        raise Rejected("This file has no picture: its video track is empty.")
    return _source(demuxer, picture, sound, packets, _seconds(described["format"]))


async def _describe(sandbox: Sandbox, job: Path) -> tuple[Any, str]:
    """(what ffprobe says of the streams, what it complains of)."""
    lines: list[str] = []
    command = ["-v", "error", *("-probesize", "50M", "-analyzeduration", "20M"), *reading()]
    command += ["-show_format", "-show_streams", "-of", "json"]
    if (job / "source").stat().st_size == 0:
        raise Rejected("This file is empty.")
    try:
        errors = await sandbox.run("ffprobe", command, job, READ_LIMITS, lines.append)
        return json.loads("\n".join(lines)), errors
    except ToolFailed as error:
        if "moov atom not found" in error.errors:
            raise Rejected("This file is cut off: its index is missing. Upload it again in full.") from None
        raise Rejected(_unreadable(job)) from None
    except LimitExceeded as error:
        raise Rejected(f"This file cannot be read within our limits: {error.limit}.") from None


def _unreadable(job: Path) -> str:
    with (job / "source").open("rb") as file:
        head = file.read(512)
    looks_like = next((what for beginning, what in BEGINNINGS if head.lstrip().startswith(beginning)), None)
    if looks_like is None and _is_text(head):
        looks_like = "text"
    return f"This file is not a video we can read{f': it looks like {looks_like}' if looks_like else ''}."


def _is_text(head: bytes) -> bool:
    printable = sum(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head)
    return printable > 0.95 * len(head)


def _best_picture(streams: list[Any]) -> Any | None:
    """The video stream to show: no cover picture; the default one, then the largest."""
    pictures = [
        stream
        for stream in streams
        if stream.get("codec_type") == "video"
        and not stream.get("disposition", {}).get("attached_pic")
        and not stream.get("disposition", {}).get("timed_thumbnails")
    ]
    return max(pictures, key=lambda s: (_is_default(s), s.get("width", 0) * s.get("height", 0)), default=None)


def _best_sound(streams: list[Any]) -> Any | None:
    """The audio stream to play: one that can be decoded; no commentary; the default one, then the first."""
    sounds = [s for s in streams if s.get("codec_type") == "audio" and s.get("channels") and s.get("codec_name")]
    return max(sounds, key=lambda s: (not s.get("disposition", {}).get("comment"), _is_default(s)), default=None)


def _is_default(stream: Any) -> bool:
    return bool(stream.get("disposition", {}).get("default"))


def _check_picture(stream: Any, errors: str) -> None:
    """Raises Rejected for a picture that we do not decode."""
    codec = stream.get("codec_name", "unknown")
    width, height = stream.get("width", 0), stream.get("height", 0)
    if refused := re.search(r"Picture size (\d+)x(\d+) (is invalid|exceeds)", errors):
        width, height = int(refused[1]), int(refused[2])
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Rejected(f"This film is too large: {width} × {height} pixels; the most is {MAX_SIDE} on a side.")
    if not width or not height or not {"pix_fmt", "codec_name"} <= stream.keys():
        raise Rejected(f"This film's picture cannot be read (its codec is {codec}).")
    if min(width, height) < SMALLEST_SIDE:
        raise Rejected(f"This film is too small: {width} × {height} pixels; the least is {SMALLEST_SIDE} on a side.")


class _Packets:
    """When the packets of one stream are shown, in seconds, and until when the last is."""

    def __init__(self) -> None:
        self.times = array("d")
        self.end = float("-inf")
        self.last_duration = 0.0


async def _read_packets(sandbox: Sandbox, job: Path, demuxer: str, indexes: list[int]) -> dict[int, _Packets]:
    """Every packet of these streams: what a header promises is not always there."""
    packets = {index: _Packets() for index in indexes}
    count = 0

    def take(line: str) -> None:
        nonlocal count
        count += 1
        if count > MAX_PACKETS:
            raise Rejected(f"This film has too many frames: more than {MAX_PACKETS:,}.")
        fields = line.split(",")
        if len(fields) < 5 or not fields[0].isdigit() or int(fields[0]) not in packets:
            return
        shown_at = fields[1] if fields[1] != "N/A" else fields[2]
        if shown_at == "N/A" or "D" in fields[4]:
            return
        stream = packets[int(fields[0])]
        time = float(shown_at)
        stream.times.append(time)
        duration = float(fields[3]) if fields[3] != "N/A" else 0.0
        if time + duration > stream.end:
            stream.end, stream.last_duration = time + duration, duration

    command = ["-v", "error", *reading(demuxer=demuxer)]
    command += ["-show_entries", "packet=stream_index,pts_time,dts_time,duration_time,flags", "-of", "csv=p=0"]
    try:
        await sandbox.run("ffprobe", command, job, READ_LIMITS, take)
    except ToolFailed as error:
        raise Rejected(f"This file is damaged and cannot be read to its end ({_last_line(error.errors)}).") from None
    except LimitExceeded as error:
        raise Rejected(f"This file cannot be read within our limits: {error.limit}.") from None
    return packets


def _last_line(text: str) -> str:
    return text.strip().rsplit("\n", 1)[-1][-200:] or "no reason given"


def _seconds(announced: Any) -> float:
    try:
        return float(announced["duration"])
    except (KeyError, ValueError):
        return 0.0


def _source(demuxer: str, picture: Any, sound: Any | None, packets: dict[int, _Packets], whole_file: float) -> Source:
    frames = packets[picture["index"]]
    times = np.unique(np.frombuffer(frames.times, dtype=np.float64))
    rate, is_constant = frame_rate(times, picture)
    start, end = float(times[0]), frames.end + (0 if frames.last_duration else float(1 / rate))
    notes = []
    heard = _heard(sound, packets)
    if sound is not None and heard is None:
        notes.append("the audio track is empty")
    first = min(start, heard.start) if heard else start
    picture_seconds = end - first
    duration = picture_seconds
    if heard and heard.end - first > picture_seconds + LONGER_SOUND_SECONDS:
        duration = heard.end - first
        notes.append(f"the sound is {duration - picture_seconds:.1f} s longer than the picture: its last frame stays")
    # What is said of the picture is held against the picture, what is said of the file against all that was read of it.
    announced, found = _seconds(picture), end - start
    if not announced:
        announced, found = whole_file, max(duration, found)
    if announced - found > max(MISSING_SECONDS, MISSING_SHARE * announced):
        raise Rejected(
            f"This file is cut off: it says that it lasts {_in_words(announced)}, but only {_in_words(found)} are there. "
            "Upload it again in full."
        )
    if duration > MAX_DURATION_SECONDS:
        raise Rejected(f"This film is too long: {_in_words(duration)}; the most is {_in_words(MAX_DURATION_SECONDS)}.")
    width, height, rotation = _shown_size(picture)
    return Source(
        demuxer=demuxer,
        stream=picture["index"],
        codec=picture["codec_name"],
        width=width,
        height=height,
        rotation=rotation,
        pixel_format=picture["pix_fmt"],
        transfer=picture.get("color_transfer", "unknown"),
        interlaced=picture.get("field_order") in INTERLACED,
        rate=rate,
        constant_rate=is_constant,
        packets=len(frames.times),
        start=first,
        picture_seconds=picture_seconds,
        duration_seconds=duration,
        sound=heard,
        notes=tuple(notes),
    )


def _heard(sound: Any | None, packets: dict[int, _Packets]) -> Sound | None:
    if sound is None or not len(packets[sound["index"]].times):
        return None
    heard = packets[sound["index"]]
    # Sound may begin before zero: an encoder's priming, which no player plays.
    start = max(min(heard.times), 0.0) if min(heard.times) > -0.2 else min(heard.times)
    return Sound(sound["index"], sound["codec_name"], sound["channels"], int(sound["sample_rate"]), start, heard.end)


def frame_rate(times: "np.ndarray[Any, np.dtype[np.float64]]", picture: Any) -> tuple[Fraction, bool]:
    """(output rate, whether the source's is constant), from the distances of its frames: what a header says is not always so."""
    announced = [_fraction(picture.get(name)) for name in ("r_frame_rate", "avg_frame_rate")]
    if len(times) < 2:
        return output_rate(next((rate for rate in announced if rate and rate <= 120), Fraction(25)), Fraction(25)), True
    distances = np.maximum(np.diff(times), SHORTEST_SECONDS)
    median = float(np.median(distances))
    regular = distances[np.abs(distances - median) <= max(0.0015, 0.1 * median)]
    is_constant = len(regular) >= 0.98 * len(distances)
    typical = float(np.mean(regular)) if len(regular) else median
    measured = max(SLOWEST_RATE, Fraction(1 / typical).limit_denominator(1001))
    agreed = next((rate for rate in announced if rate and abs(rate / measured - 1) < SAME_RATE), None)
    return output_rate(agreed if is_constant else None, measured), is_constant


def _fraction(text: str | None) -> Fraction | None:
    try:
        return Fraction(text) if text else None
    except (ValueError, ZeroDivisionError):
        return None


def _shown_size(stream: Any) -> tuple[int, int, int]:
    """(width, height, rotation in degrees) as shown: with square pixels, turned the way up that the file asks for."""
    width, height = stream["width"], stream["height"]
    pixel = _fraction(stream.get("sample_aspect_ratio", "").replace(":", "/"))
    # A pixel eight times as wide as high is a mistake in the header, no format.
    if pixel and Fraction(1, 8) <= pixel <= 8:
        width = max(SMALLEST_SIDE, min(MAX_SIDE, round(width * pixel)))
    rotation = next((int(data["rotation"]) for data in stream.get("side_data_list", []) if "rotation" in data), 0)
    if abs(rotation) % 180 == 90:
        width, height = height, width
    return width, height, rotation % 360


def _in_words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
