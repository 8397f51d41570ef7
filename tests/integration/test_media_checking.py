"""A result that is wrong is found before anybody sees it, whatever ffmpeg's exit code said."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.media.checking import WrongResult, check, measure
from agents.media.ladder import rungs
from agents.media.probe import probe
from agents.media.sandbox import Sandbox, open_sandbox
from agents.media.transcoding import Plan, plan, transcode
from tests.films import film

Harm = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sandbox, Path, Plan]:
    """A film of three segments in two rungs, as ffmpeg left it."""
    job = tmp_path_factory.mktemp("job")
    film(job / "source.mp4", seconds=9, size="480x360").rename(job / "source")

    async def make() -> tuple[Sandbox, Path, Plan]:
        sandbox = await open_sandbox(job)
        source = await probe(sandbox, job)
        what = plan(source, rungs(source.width, source.height, source.rate))
        await transcode(sandbox, job, what, "veryfast", lambda share: None)
        return sandbox, job, what

    return asyncio.run(make())


@pytest.fixture
def copy(made: tuple[Sandbox, Path, Plan], tmp_path: Path) -> Path:
    shutil.copytree(made[1], tmp_path / "job")
    return tmp_path / "job"


def lose_the_last_segment(out: Path) -> None:
    (out / "360p-00002.m4s").unlink()


def lose_a_segment_on_the_way(out: Path) -> None:
    (out / "360p-00001.m4s").unlink()


def swap_two_segments(out: Path) -> None:
    (out / "360p-00000.m4s").rename(out / "aside")
    (out / "360p-00001.m4s").rename(out / "360p-00000.m4s")
    (out / "aside").rename(out / "360p-00001.m4s")


def cut_a_segment_short(out: Path) -> None:
    path = out / "360p-00001.m4s"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_the_init_segment(out: Path) -> None:
    (out / "360p-init.mp4").unlink()


def take_another_rungs_picture(out: Path) -> None:
    for path in out.glob("240p-*"):
        shutil.copy(path, out / path.name.replace("240p", "360p"))


def join_two_segments(out: Path) -> None:
    first, second, third = (out / f"360p-0000{number}.m4s" for number in range(3))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    third.rename(second)


@pytest.mark.parametrize(
    "harm",
    [
        lose_the_last_segment,
        lose_a_segment_on_the_way,
        swap_two_segments,
        cut_a_segment_short,
        lose_the_init_segment,
        take_another_rungs_picture,
        join_two_segments,
    ],
)
async def test_a_wrong_rendition_is_found(harm: Harm, made: tuple[Sandbox, Path, Plan], copy: Path) -> None:
    sandbox, _, what = made
    harm(copy / "out")
    with pytest.raises(WrongResult, match="360p"):
        await check(sandbox, copy, what)


async def test_a_right_rendition_passes(made: tuple[Sandbox, Path, Plan]) -> None:
    sandbox, job, what = made
    assert [rendition.duration_seconds for rendition in await check(sandbox, job, what)] == [pytest.approx(9)] * 2


def test_a_film_that_is_shorter_than_its_source_is_found(made: tuple[Sandbox, Path, Plan]) -> None:
    _, job, what = made
    with pytest.raises(WrongResult, match=r"lasts 9.00 s of 9.40 s"):
        measure(job / "out", what.rungs[0], what._replace(frames=what.frames + 10))
