"""The one door to ffmpeg: what runs behind it sees the film and nothing else, and always ends."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.media.sandbox import LimitExceeded, Limits, SandboxUnavailable, ToolFailed, open_sandbox

DEADLINE_SECONDS = 20.0
AMPLE = Limits(cpu_seconds=10, wall_seconds=10)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "source").write_text("the film")
    return tmp_path


async def output_of(job: Path, script: str, limits: Limits = AMPLE) -> list[str]:
    lines: list[str] = []
    sandbox = await open_sandbox(job)
    await sandbox.run("sh", ["-c", script], job, limits, lines.append)
    return lines


def running(marker: str) -> list[int]:
    """The processes that have `marker` among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it ended while we looked
    return found


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.02)


async def test_it_sees_the_film_and_the_programs_alone(job: Path) -> None:
    secret = job / "secret"
    secret.write_text("not for a decoder")
    seen = await output_of(job, f"ls / /job /etc; cat {secret} /etc/passwd /etc/shadow 2>/dev/null; true")
    assert {"source", "out"} <= set(seen)
    assert not {"root", "home", "work", "var", "tmp", "proc", "sys", "secret", "passwd", "not for a decoder"} & set(
        seen
    )


async def test_it_cannot_change_the_film(job: Path) -> None:
    with pytest.raises(ToolFailed):
        await output_of(job, "echo other > /job/source")
    assert (job / "source").read_text() == "the film"


async def test_it_reaches_no_server_of_this_machine(job: Path) -> None:
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ToolFailed, match=r"Connection refused|Network is unreachable"):
            await (await open_sandbox(job)).run("ffmpeg", ["-i", f"tcp://127.0.0.1:{port}"], job, AMPLE)


async def test_it_is_nobody(job: Path) -> None:
    assert (await output_of(job, "id -u"))[0] != "0"


async def test_what_burns_cpu_is_stopped(job: Path) -> None:
    with pytest.raises(LimitExceeded, match="CPU"):
        await output_of(job, "while :; do :; done", AMPLE._replace(cpu_seconds=1))


async def test_what_takes_too_much_memory_fails(job: Path) -> None:
    script = "exec perl -e '$x = \"a\" x 600_000_000'"
    with pytest.raises((ToolFailed, LimitExceeded)):
        await output_of(job, script, AMPLE._replace(memory_bytes=300_000_000))


async def test_what_writes_too_much_is_stopped(job: Path) -> None:
    with pytest.raises(LimitExceeded, match="larger"):
        await output_of(job, "exec head -c 1000000 /dev/zero > big", AMPLE._replace(file_bytes=100_000))


@pytest.mark.parametrize("limits", [AMPLE._replace(wall_seconds=0.5), AMPLE._replace(quiet_seconds=0.5)])
async def test_what_takes_too_long_is_stopped_with_all_its_children(job: Path, limits: Limits) -> None:
    marker = f"70{os.getpid()}"
    with pytest.raises(LimitExceeded):
        await output_of(job, f"sleep {marker} & sleep {marker}", limits)
    assert not running(marker)


async def test_what_is_cancelled_is_gone_with_all_its_children(job: Path) -> None:
    marker = f"71{os.getpid()}"
    task = asyncio.create_task(output_of(job, f"sleep {marker} & sleep {marker}"))
    await until(lambda: bool(running(marker)))
    task.cancel()
    await asyncio.wait([task])
    assert not running(marker)


def begun(marker: str) -> bool:
    """The program itself runs, and not what leads to it."""
    return any(Path(f"/proc/{pid}/comm").read_text().strip() == "sleep" for pid in running(marker))


@pytest.mark.parametrize("killed_once", [begun, running], ids=["the program runs", "the way in is taken"])
async def test_nothing_outlives_a_worker_that_is_killed(job: Path, killed_once: Callable[[str], object]) -> None:
    marker = f"72{os.getpid()}"
    program = (
        "import asyncio, pathlib, sys; from agents.media.sandbox import *; job = pathlib.Path(sys.argv[1]); "
        f"asyncio.run(Sandbox(sys.argv[2:]).run('sleep', ['{marker}'], job, Limits(10, 60)))"
    )
    way_in = (await open_sandbox(job)).way_in
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(job), *way_in)
    try:
        await until(lambda: bool(killed_once(marker)))
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: not running(marker))


async def test_a_link_that_it_leaves_is_not_followed(job: Path) -> None:
    with pytest.raises(ToolFailed, match="no plain file"):
        await output_of(job, "ln -s /etc/passwd 720p-00000.m4s")


async def test_without_bubblewrap_nothing_runs(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails closed, with a sentence that says what to do."""
    broken = job / "bin"
    broken.mkdir()
    (broken / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    (broken / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:{os.environ['PATH']}")
    with pytest.raises(
        SandboxUnavailable, match=r"No permissions to create new namespace.*No film is read without one"
    ):
        await open_sandbox(job)


CHROOT = """
set -e
for folder in usr proc dev {folders}; do mkdir -p {root}/$folder; mount --rbind /$folder {root}/$folder; done
for name in bin sbin lib lib64; do [ ! -L /$name ] || ln -s usr/$name {root}/$name; done
mkdir -p {root}/tmp {root}/etc; cp -a /etc/alternatives /etc/ld.so.cache {root}/etc
cd /; exec chroot {root} env -C {project} {python} -c "{program}"
"""


def test_it_works_in_a_chroot(tmp_path: Path) -> None:
    """Whose root is no mount point, as debootstrap leaves it."""
    project = Path(__file__).parents[2]
    script = CHROOT.format(
        root=tmp_path / "root",
        folders=" ".join(path.strip("/") for path in {str(project), sys.prefix, sys.base_prefix}),
        project=project,
        python=sys.executable,
        program="import asyncio, pathlib; from agents.media.sandbox import open_sandbox; "
        "print(len(asyncio.run(open_sandbox(pathlib.Path('/tmp'))).way_in))",
    )
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)
    assert int(done.stdout) > 1
