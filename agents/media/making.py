"""From an uploaded file to a checked film, in one private directory."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agents.media.checking import check
from agents.media.ladder import rungs
from agents.media.passport import passport
from agents.media.pictures import take_pictures
from agents.media.probe import probe
from agents.media.publishing import Film
from agents.media.sandbox import Sandbox
from agents.media.transcoding import plan, transcode

ROOM_FACTOR, ROOM_BYTES = 3, 2**30  # a source, its renditions, a joined one; and what the machine needs to breathe
TRANSCODED_SHARE = 0.9  # of all the work


class TooLittleDisk(OSError):
    """The work would fill the disk; it waits until there is room."""


@asynccontextmanager
async def job_directory(scratch: Path, name: str, size: int) -> AsyncIterator[Path]:
    """A directory for one film of `size` bytes, gone at the end. Raises TooLittleDisk."""
    free = shutil.disk_usage(scratch).free
    if free < ROOM_FACTOR * size + ROOM_BYTES:
        raise TooLittleDisk(f"{free:,} bytes are free at {scratch}; a film of {size:,} needs more")
    job = scratch / name
    job.mkdir()
    try:
        yield job
    finally:
        await asyncio.to_thread(shutil.rmtree, job, ignore_errors=True)


async def make(sandbox: Sandbox, job: Path, attempt: str, preset: str, on_progress: Callable[[float], None]) -> Film:
    """Make a film of `job`/source. Raises Rejected when it can be none, WrongResult when what was made of it is not right."""
    (job / "source").chmod(0o444)  # the sandbox reads it as nobody
    source = await probe(sandbox, job)
    what = plan(source, rungs(source.width, source.height, source.rate))
    await transcode(sandbox, job, what, preset, lambda share: on_progress(share * TRANSCODED_SHARE))
    renditions = await check(sandbox, job, what)
    pictures = await take_pictures(sandbox, job, what, renditions)
    return Film(job / "out", attempt, what, renditions, pictures, passport(what, renditions, pictures))
