"""The check by machine of what ffmpeg made, before anybody sees it: its exit code is no proof of a right result."""

import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from agents.media.ffmpeg import reading
from agents.media.fragments import NotAFragment, Sample, read_init, read_samples
from agents.media.ladder import SEGMENT_SECONDS, Rung
from agents.media.playlists import Segment
from agents.media.probe import READ_LIMITS
from agents.media.sandbox import JOINED, Sandbox, ToolFailed
from agents.media.transcoding import PRIMING_SAMPLES, SAMPLE_RATE, Plan, init_name, segment_name

LENGTH_TOLERANCE_SECONDS = 0.2
SOUND_TOLERANCE_SECONDS = 0.1  # at the end, where the last block is rounded up
SOUND_GAP_SECONDS = PRIMING_SAMPLES / SAMPLE_RATE


class WrongResult(Exception):
    """What ffmpeg made is not what was asked for; nothing of it may be published."""


class Rendition(NamedTuple):
    """A rung as it was measured. `cuts` are the moments, in seconds, at which its segments begin."""

    rung: Rung
    codecs: str
    segments: tuple[Segment, ...]
    cuts: tuple[float, ...]

    @property
    def duration_seconds(self) -> float:
        return sum(segment.duration_seconds for segment in self.segments)


async def check(sandbox: Sandbox, job: Path, plan: Plan) -> list[Rendition]:
    """Every rendition in `job`/out, measured and found right. Raises WrongResult."""
    renditions = []
    for rung in plan.rungs:
        renditions.append(measure(job / "out", rung, plan))
        await _check_streams(sandbox, job, rung, with_sound=plan.source.sound is not None)
    for rendition in renditions[1:]:
        if rendition.cuts != renditions[0].cuts:
            raise WrongResult(f"{rendition.rung.quality} is cut at other moments than {renditions[0].rung.quality}")
    return renditions


def measure(out: Path, rung: Rung, plan: Plan) -> Rendition:
    """Read a rendition's fragments back and compare them with the plan. Raises WrongResult."""
    names = sorted(path.name for path in out.glob(f"{rung.quality}-*.m4s"))
    if not names or names != [segment_name(rung, number) for number in range(len(names))]:
        raise WrongResult(f"{rung.quality} has {len(names)} segments, and some are missing")
    try:
        tracks = read_init((out / init_name(rung)).read_bytes())
        parts = [read_samples((out / name).read_bytes(), tracks) for name in names]
    except (NotAFragment, FileNotFoundError) as error:
        raise WrongResult(f"{rung.quality}: {error}") from None
    picture = [number for number, track in tracks.items() if track.codec.startswith("avc1")]
    sound = [number for number, track in tracks.items() if not track.codec.startswith("avc1")]
    if len(picture) != 1 or len(sound) != (plan.source.sound is not None):
        raise WrongResult(f"{rung.quality} holds {len(picture)} video and {len(sound)} audio tracks")
    frames = [_of_track(part, picture[0]) for part in parts]
    _check_frames(rung, frames, plan)
    if sound:
        _check_sound(rung, [sample for part in parts for sample in _of_track(part, sound[0])], plan.duration_seconds)
    counts = [len(part) for part in frames]
    return Rendition(
        rung,
        ",".join(tracks[number].codec for number in (*picture, *sound)),
        tuple(
            Segment(name, float(count / plan.rate), (out / name).stat().st_size)
            for name, count in zip(names, counts, strict=True)
        ),
        tuple(float(sum(counts[:number]) / plan.rate) for number in range(len(counts))),
    )


def _of_track(samples: Iterable[Sample], track: int) -> list[Sample]:
    return [sample for sample in samples if sample.track == track]


def _check_frames(rung: Rung, segments: Sequence[Sequence[Sample]], plan: Plan) -> None:
    frame_seconds = float(1 / plan.rate)
    for number, frames in enumerate(segments):
        if not frames or not frames[0].is_key:
            raise WrongResult(f"{rung.quality}: segment {number} does not begin with a key frame")
        if len(frames) * frame_seconds > 1.5 * SEGMENT_SECONDS:
            raise WrongResult(f"{rung.quality}: segment {number} lasts {len(frames) * frame_seconds:.2f} s")
        if min(frames, key=lambda frame: frame.shown_at) is not frames[0]:
            raise WrongResult(f"{rung.quality}: segment {number} shows a frame before its key frame")
    shown = sorted(frame.shown_at for frames in segments for frame in frames)
    wrong = next((n for n, time in enumerate(shown) if abs(time - float(n / plan.rate)) > frame_seconds / 2), None)
    if wrong is not None:
        raise WrongResult(f"{rung.quality}: frame {wrong} is shown at {shown[wrong]:.3f} s")
    if abs(len(shown) - plan.frames) > max(1, LENGTH_TOLERANCE_SECONDS * plan.rate):
        lasts = len(shown) * frame_seconds
        raise WrongResult(f"{rung.quality} lasts {lasts:.2f} s of {plan.duration_seconds:.2f} s")


def _check_sound(rung: Rung, samples: Sequence[Sample], duration_seconds: float) -> None:
    if not samples:
        raise WrongResult(f"{rung.quality} has lost its sound")
    if abs(samples[0].shown_at) > SOUND_GAP_SECONDS:
        raise WrongResult(f"{rung.quality}: the sound begins at {samples[0].shown_at:.3f} s")
    for before, after in pairwise(samples):
        if abs(after.shown_at - before.shown_at - before.duration) > SOUND_GAP_SECONDS:
            raise WrongResult(f"{rung.quality}: the sound has a gap at {after.shown_at:.3f} s")
    end = samples[-1].shown_at + samples[-1].duration
    if abs(end - duration_seconds) > max(SOUND_TOLERANCE_SECONDS, 3 * SOUND_GAP_SECONDS):
        raise WrongResult(f"{rung.quality}: the sound ends at {end:.2f} s of {duration_seconds:.2f} s")


async def _check_streams(sandbox: Sandbox, job: Path, rung: Rung, *, with_sound: bool) -> None:
    """What a decoder sees in the rung. Raises WrongResult."""
    join(job, [init_name(rung), segment_name(rung, 0)])
    lines: list[str] = []
    command = ["-v", "error", *reading(JOINED, "mov"), "-show_streams", "-of", "json"]
    try:
        await sandbox.run("ffprobe", command, job, READ_LIMITS, lines.append)
    except ToolFailed as error:
        raise WrongResult(f"{rung.quality} cannot be read back: {error}") from None
    streams = {stream["codec_type"]: stream for stream in json.loads("\n".join(lines))["streams"]}
    expected: dict[str, dict[str, object]] = {
        "video": {
            "codec_name": "h264",
            "pix_fmt": "yuv420p",
            "width": rung.width,
            "height": rung.height,
            "sample_aspect_ratio": "1:1",
        }
    }
    if with_sound:
        expected["audio"] = {"codec_name": "aac", "profile": "LC", "sample_rate": str(SAMPLE_RATE), "channels": 2}
    for kind, facts in expected.items():
        found = {name: streams.get(kind, {}).get(name) for name in facts}
        if found != facts:
            raise WrongResult(f"{rung.quality}: the {kind} is {found}, not {facts}")


def join(job: Path, names: Iterable[str]) -> None:
    """Write these files of `job`/out one after the other to `job`/joined, which is then a film of its own."""
    with (job / Path(JOINED).name).open("wb") as joined:
        for name in names:
            with (job / "out" / name).open("rb") as part:
                shutil.copyfileobj(part, joined)
