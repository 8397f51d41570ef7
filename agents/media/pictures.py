"""The thumbnail and the storyboard of a film, taken from its checked renditions."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agents.media.checking import Rendition, WrongResult, join
from agents.media.ffmpeg import reading
from agents.media.ladder import frames_per_segment
from agents.media.playlists import Tile
from agents.media.sandbox import JOINED, LimitExceeded, Limits, Sandbox, ToolFailed
from agents.media.transcoding import Plan, init_name

EVERY_SECOND_UP_TO_SECONDS = 60  # a longer film shows key frames alone: they cost little to decode
MOST_PICTURES = 300
TILE_SIDE = 160
SHEET_SIDE = 10  # pictures
THUMBNAIL_AT = 0.1  # of the film
THUMBNAIL_SIDE = 1280
SHADE = (35.0, 220.0)  # mean luma of a picture that is neither black nor white
CONTRAST = 40.0  # between the darkest and the brightest tenth
STATISTICS = "luma.txt"
THUMBNAIL = "thumbnail.jpg"


class Pictures(NamedTuple):
    """What lies in `job`/out: the sheets of the storyboard, and how to read them."""

    sheets: tuple[str, ...]
    tile: Tile
    tiles: int
    interval_seconds: float
    thumbnail_seconds: float


class Look(NamedTuple):
    """How bright one picture of the storyboard is (0 to 255)."""

    seconds: float
    mean: float
    contrast: float


async def take_pictures(sandbox: Sandbox, job: Path, plan: Plan, renditions: Sequence[Rendition]) -> Pictures:
    """Make the storyboard from the smallest rendition, choose a moment that shows something, take the thumbnail from the largest.

    Raises WrongResult when a rendition cannot be decoded.
    """
    smallest, largest = renditions[-1], renditions[0]
    key_frames_alone = plan.duration_seconds > EVERY_SECOND_UP_TO_SECONDS
    interval = interval_seconds(plan)
    count = math.floor((plan.duration_seconds - float(1 / plan.rate)) / interval + 0.001) + 1
    columns = min(SHEET_SIDE, count)
    tile = Tile(
        *_within(smallest.rung.width, smallest.rung.height, TILE_SIDE), columns, min(SHEET_SIDE, -(-count // columns))
    )
    join(job, [init_name(smallest.rung), *(segment.name for segment in smallest.segments)])
    chain = (
        f"select='gte(t-start_t+0.01,selected_n*{interval:.6f})',scale={tile.width}:{tile.height},"
        f"signalstats,metadata=mode=print:file={STATISTICS},tile={tile.columns}x{tile.rows}"
    )
    await _run(
        sandbox,
        job,
        [*(("-skip_frame", "nokey") if key_frames_alone else ()), *reading(JOINED, "mov")],
        ["-vf", chain, "-fps_mode", "vfr", "-start_number", "1", "-q:v", "5", "-pix_fmt", "yuvj420p", "sheet-%03d.jpg"],
    )
    sheets = tuple(sorted(path.name for path in (job / "out").glob("sheet-*.jpg")))
    if len(sheets) != -(-count // (tile.columns * tile.rows)):
        raise WrongResult(f"{smallest.rung.quality} gave {len(sheets)} sheets of pictures")
    looks = read_looks((job / "out" / STATISTICS).read_text(), interval)
    moment = best_moment(looks, plan.duration_seconds)
    await _take_thumbnail(sandbox, job, plan, largest, moment)
    return Pictures(sheets, tile, count, interval, moment)


def interval_seconds(plan: Plan) -> float:
    """Between two pictures of the storyboard: a second, or as many segments as keep it small."""
    if plan.duration_seconds <= EVERY_SECOND_UP_TO_SECONDS:
        return 1.0
    segment_seconds = float(frames_per_segment(plan.rate) / plan.rate)
    return segment_seconds * math.ceil(plan.duration_seconds / segment_seconds / MOST_PICTURES)


def read_looks(text: str, interval: float) -> list[Look]:
    """What signalstats said of each picture, in their order."""
    values = {
        name: [float(value) for value in re.findall(rf"lavfi\.signalstats\.{name}=([0-9.]+)", text)]
        for name in ("YAVG", "YLOW", "YHIGH")
    }
    return [
        Look(number * interval, mean, high - low)
        for number, (mean, low, high) in enumerate(zip(values["YAVG"], values["YLOW"], values["YHIGH"], strict=False))
    ]


def best_moment(looks: Sequence[Look], duration_seconds: float) -> float:
    """The moment nearest to a tenth of the film that shows something; if all is dark or flat, the one that shows most."""
    showing = [look for look in looks if SHADE[0] <= look.mean <= SHADE[1] and look.contrast >= CONTRAST]
    if showing:
        return min(showing, key=lambda look: abs(look.seconds - THUMBNAIL_AT * duration_seconds)).seconds
    return max(looks, key=lambda look: look.contrast, default=Look(0, 0, 0)).seconds


async def _take_thumbnail(sandbox: Sandbox, job: Path, plan: Plan, rendition: Rendition, moment: float) -> None:
    number = max(n for n, cut in enumerate(rendition.cuts) if cut <= moment + 0.01)
    join(job, [init_name(rendition.rung), rendition.segments[number].name])
    width, height = _within(rendition.rung.width, rendition.rung.height, THUMBNAIL_SIDE)
    seconds = max(0.0, moment - rendition.cuts[number])
    chain = f"select='gte(t-start_t+0.01,{seconds:.6f})',scale={width}:{height}"
    arguments = [
        "-vf",
        chain,
        "-fps_mode",
        "vfr",
        "-frames:v",
        "1",
        "-q:v",
        "3",
        "-pix_fmt",
        "yuvj420p",
        "-update",
        "1",
        THUMBNAIL,
    ]
    await _run(sandbox, job, reading(JOINED, "mov"), arguments)
    if not (job / "out" / THUMBNAIL).is_file():
        raise WrongResult(f"{rendition.rung.quality} gave no picture at {moment:.1f} s")


def _within(width: int, height: int, side: int) -> tuple[int, int]:
    """The size with its longer side at most `side`, in even numbers."""
    scale = min(1.0, side / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


async def _run(sandbox: Sandbox, job: Path, source: Sequence[str], result: Sequence[str]) -> None:
    command = [
        "-v",
        "error",
        "-nostdin",
        "-y",
        "-progress",
        "pipe:1",
        "-xerror",
        *source,
        "-an",
        "-map",
        "0:v:0",
        *result,
    ]
    try:
        await sandbox.run("ffmpeg", command, job, Limits(cpu_seconds=3_600, wall_seconds=3_600))
    except (ToolFailed, LimitExceeded) as error:
        raise WrongResult(f"a rendition cannot be decoded: {error}") from None
