"""The check by machine of what ffmpeg made, before anybody sees it: its exit code is no proof of a right result."""

import asyncio
import json
import shutil
from collections.abc import Iterable, Sequence
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
        renditions.append(await asyncio.to_thread(measure, job / "out", rung, plan))
        await _check_streams(sandbox, job, rung, with_sound=plan.source.sound is not None)
    for rendition in renditions[1:]:
        if rendition.cuts != renditions[0].cuts:
            raise WrongResult(f"{rendition.rung.quality} is cut at other moments than {renditions[0].rung.quality}")
    return renditions


def measure(out: Path, rung: Rung, plan: Plan) -> Rendition:
    """Read a rendition's fragments back, one by one, and compare them with the plan. Raises WrongResult."""
    names = sorted(path.name for path in out.glob(f"{rung.quality}-*.m4s"))
    if not names or names != [segment_name(rung, number) for number in range(len(names))]:
        raise WrongResult(f"{rung.quality} has {len(names)} segments, and some are missing")
    try:
        tracks = read_init((out / init_name(rung)).read_bytes())
        picture = [number for number, track in tracks.items() if track.codec.startswith("avc1")]
        sound = [number for number in tracks if number not in picture]
        if len(picture) != 1 or len(sound) != (plan.source.sound is not None):
            raise WrongResult(f"{rung.quality} holds {len(picture)} video and {len(sound)} audio tracks")
        segments, cuts, frames, heard = [], [], 0, 0.0
        for name in names:
            samples = read_samples((out / name).read_bytes(), tracks)
            shown = [sample for sample in samples if sample.track == picture[0]]
            _check_frames(name, shown, frames, plan)
            heard = _check_sound(name, [sample for sample in samples if sample.track != picture[0]], heard)
            segments.append(Segment(name, float(len(shown) / plan.rate), (out / name).stat().st_size))
            cuts.append(float(frames / plan.rate))
            frames += len(shown)
    except (NotAFragment, FileNotFoundError) as error:
        raise WrongResult(f"{rung.quality}: {error}") from None
    _check_length(rung, float(frames / plan.rate), heard if sound else None, plan.duration_seconds)
    codecs = ",".join(tracks[number].codec for number in (*picture, *sound))
    return Rendition(rung, codecs, tuple(segments), tuple(cuts))


def _check_frames(name: str, frames: Sequence[Sample], first: int, plan: Plan) -> None:
    """A segment begins with its key frame and shows its frames, of which `first` is the number of the first, at their times."""
    seconds = float(len(frames) / plan.rate)
    if not frames or not frames[0].is_key:
        raise WrongResult(f"{name} does not begin with a key frame")
    if seconds > 1.5 * SEGMENT_SECONDS:
        raise WrongResult(f"{name} lasts {seconds:.2f} s")
    if min(frames, key=lambda frame: frame.shown_at) is not frames[0]:
        raise WrongResult(f"{name} shows a frame before its key frame")
    for number, time in enumerate(sorted(frame.shown_at for frame in frames), start=first):
        if abs(time - float(number / plan.rate)) > float(1 / plan.rate) / 2:
            raise WrongResult(f"{name} shows frame {number} at {time:.3f} s")


def _check_sound(name: str, samples: Sequence[Sample], heard: float) -> float:
    """Sound goes on where it was `heard` until; returns until when it is heard now."""
    for sample in samples:
        if abs(sample.shown_at - heard) > SOUND_GAP_SECONDS:
            raise WrongResult(f"{name}: the sound has a gap from {heard:.3f} to {sample.shown_at:.3f} s")
        heard = sample.shown_at + sample.duration
    return heard


def _check_length(rung: Rung, shown: float, heard: float | None, expected: float) -> None:
    if abs(shown - expected) > LENGTH_TOLERANCE_SECONDS:
        raise WrongResult(f"{rung.quality} lasts {shown:.2f} s of {expected:.2f} s")
    if heard is not None and abs(heard - expected) > SOUND_TOLERANCE_SECONDS:
        raise WrongResult(f"{rung.quality} is heard for {heard:.2f} s of {expected:.2f} s")


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
