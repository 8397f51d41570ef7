"""Small films for tests, made with ffmpeg, and what an independent decoder sees in the result."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

PICTURE = ("-f", "lavfi", "-i")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")


def ffmpeg(*arguments: str | Path) -> None:
    """Raises CalledProcessError."""
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True, timeout=60)


def film(
    path: Path,
    seconds: float = 3,
    size: str = "320x240",
    rate: str = "25",
    *,
    sound: bool = True,
    extra: tuple[str, ...] = H264,
) -> Path:
    """A moving test picture with a tone."""
    ffmpeg(*PICTURE, f"testsrc2=size={size}:rate={rate}", *(TONE if sound else ()), "-t", str(seconds), *extra, path)
    return path


class Seen(NamedTuple):
    """What a decoder that is not ours sees in a rendition."""

    frames: int
    video: dict[str, Any]
    audio: dict[str, Any] | None
    audio_seconds: float


def see(playlist: Path) -> Seen:
    """Decode the whole rendition from its playlist, as a player would."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-allowed_extensions",
        "ALL",
        "-count_frames",
        "-show_streams",
        "-of",
        "json",
        str(playlist),
    ]
    streams = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)["streams"]
    video = next(stream for stream in streams if stream["codec_type"] == "video")
    audio = next((stream for stream in streams if stream["codec_type"] == "audio"), None)
    samples = 1024 * int(audio["nb_read_frames"]) / 48_000 if audio else 0.0
    return Seen(int(video["nb_read_frames"]), video, audio, samples)


def luma(picture: Path, *filters: str) -> list[float]:
    """The mean luma of each frame after `filters`."""
    chain = ",".join((*filters, "signalstats,metadata=mode=print:key=lavfi.signalstats.YAVG:file=-"))
    command = ["ffmpeg", "-v", "error", "-nostdin", "-allowed_extensions", "ALL"]
    command = [
        *command[:4],
        *(command[4:] if picture.suffix == ".m3u8" else ()),
        "-i",
        str(picture),
        "-vf",
        chain,
        "-f",
        "null",
        "-",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [float(line.partition("=")[2]) for line in output.splitlines() if line.startswith("lavfi")]


def loudness(source: Path, block_seconds: float) -> list[float]:
    """The root mean square level, in dB, of each block of sound."""
    chain = f"asetnsamples={round(48_000 * block_seconds)},astats=metadata=1:reset=1,"
    chain += "ametadata=mode=print:key=lavfi.astats.Overall.RMS_level:file=-"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        *(("-allowed_extensions", "ALL") if source.suffix == ".m3u8" else ()),
    ]
    command += ["-i", str(source), "-af", chain, "-f", "null", "-"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [float(line.partition("=")[2]) for line in output.splitlines() if line.startswith("lavfi")]
