"""Reads back what was written: the samples of fragmented MP4 (ISO/IEC 14496-12), as a player will meet them. Pure."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

NOT_A_KEY_FRAME = 0x10000  # sample_is_non_sync_sample
HAS_DATA_OFFSET, HAS_FIRST_FLAGS = 0x1, 0x4
HAS_DURATION, HAS_SIZE, HAS_FLAGS, HAS_OFFSET = 0x100, 0x200, 0x400, 0x800
AAC_LC = "mp4a.40.2"


class NotAFragment(ValueError):
    """The bytes are no fragmented MP4 of the kind this project writes."""


class Track(NamedTuple):
    """A track of an init segment. `timescale` is in ticks per second; `codec` as in RFC 6381."""

    number: int
    timescale: int
    codec: str
    default_duration: int
    default_flags: int


class Sample(NamedTuple):
    """A frame, of picture or of sound: when it is shown, for how long (seconds), and whether decoding can begin with it."""

    track: int
    shown_at: float
    duration: float
    is_key: bool


def read_init(data: bytes) -> dict[int, Track]:
    """The tracks of an init segment. Raises NotAFragment."""
    try:
        moov = _find(data, b"moov")
        defaults = {}
        for trex in (box for name, box in _boxes(_find(moov, b"mvex")) if name == b"trex"):
            number, _, duration, _, flags = struct.unpack_from(">5I", trex, 4)
            defaults[number] = duration, flags
        tracks = {}
        for box in (box for name, box in _boxes(moov) if name == b"trak"):
            number = _number(_find(box, b"tkhd"), 12, 20)
            mdia = _find(box, b"mdia")
            duration, flags = defaults[number]
            tracks[number] = Track(number, _number(_find(mdia, b"mdhd"), 12, 20), _codec(mdia), duration, flags)
        return tracks
    except (struct.error, KeyError) as error:
        raise NotAFragment(f"the init segment cannot be read back: {error!r}") from None


def read_samples(data: bytes, tracks: dict[int, Track]) -> list[Sample]:
    """The samples of a media segment, in the order of their bytes. Raises NotAFragment."""
    try:
        return [
            sample
            for name, moof in _boxes(data)
            if name == b"moof"
            for inner, traf in _boxes(moof)
            if inner == b"traf"
            for sample in _samples(traf, tracks)
        ]
    except (struct.error, KeyError) as error:
        raise NotAFragment(f"the segment cannot be read back: {error!r}") from None


def _samples(traf: memoryview, tracks: dict[int, Track]) -> Iterator[Sample]:
    tfhd = _find(traf, b"tfhd")
    flags, number = struct.unpack_from(">II", tfhd)
    track = tracks[number]
    at, default_duration, default_flags = 8, track.default_duration, track.default_flags
    for bit, size in ((0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4), (0x20, 4)):
        if flags & bit:
            if bit == 0x8:
                (default_duration,) = struct.unpack_from(">I", tfhd, at)
            if bit == 0x20:
                (default_flags,) = struct.unpack_from(">I", tfhd, at)
            at += size
    tfdt = _find(traf, b"tfdt")
    (decoded_at,) = struct.unpack_from(">Q" if tfdt[0] else ">I", tfdt, 4)
    for name, trun in _boxes(traf):
        if name == b"trun":
            for offset, duration, sample_flags in _run(trun, default_duration, default_flags):
                yield Sample(
                    number,
                    (decoded_at + offset) / track.timescale,
                    duration / track.timescale,
                    not sample_flags & NOT_A_KEY_FRAME,
                )
                decoded_at += duration


def _run(trun: memoryview, duration: int, flags: int) -> Iterator[tuple[int, int, int]]:
    """(composition offset, duration, flags) of each sample of a track run."""
    header, count = struct.unpack_from(">II", trun)
    at, first_flags = 8, None
    if header & HAS_DATA_OFFSET:
        at += 4
    if header & HAS_FIRST_FLAGS:
        (first_flags,) = struct.unpack_from(">I", trun, at)
        at += 4
    for index in range(count):
        sample_duration, sample_flags, offset = duration, flags, 0
        if index == 0 and first_flags is not None:
            sample_flags = first_flags
        if header & HAS_DURATION:
            (sample_duration,) = struct.unpack_from(">I", trun, at)
            at += 4
        if header & HAS_SIZE:
            at += 4
        if header & HAS_FLAGS:
            (sample_flags,) = struct.unpack_from(">I", trun, at)
            at += 4
        if header & HAS_OFFSET:
            (offset,) = struct.unpack_from(">i", trun, at)
            at += 4
        yield offset, sample_duration, sample_flags


def _boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(data), 0
    while at + 8 <= len(view):
        size, name = struct.unpack_from(">I4s", view, at)
        if size < 8 or at + size > len(view):
            raise NotAFragment(f"the box {name!r} at {at:,} does not fit")
        yield name, view[at + 8 : at + size]
        at += size


def _find(data: bytes | memoryview, wanted: bytes) -> memoryview:
    for name, box in _boxes(data):
        if name == wanted:
            return box
    raise KeyError(wanted)


def _number(box: memoryview, at_version_0: int, at_version_1: int) -> int:
    number: int = struct.unpack_from(">I", box, at_version_1 if box[0] else at_version_0)[0]
    return number


def _codec(mdia: memoryview) -> str:
    stsd = bytes(_find(_find(_find(mdia, b"minf"), b"stbl"), b"stsd"))
    if (at := stsd.find(b"avcC")) >= 0:
        # AVCDecoderConfigurationRecord: its version, then profile, constraints and level.
        return f"avc1.{stsd[at + 5 : at + 8].hex()}"
    if stsd.find(b"mp4a") >= 0:
        return AAC_LC
    raise NotAFragment("a track is neither H.264 nor AAC")
