"""The one door to ffmpeg and ffprobe: bubblewrap without network, over a private directory, with hard limits. It fails closed.

A film is somebody else's bytes, and a decoder is a large parser in C. What runs here sees `/usr` read-only, the film at `/job/source`
and one writable directory, `/job/out`; it has no network, no other process, no privilege, and ends when the worker ends. What it leaves
is plain files, or it has failed.
"""

import asyncio
import errno
import os
import shutil
import signal
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

NOBODY = 65534
SOURCE = "/job/source"
JOINED = "/job/joined"  # what was made, put together to be read back
OUT = "/job/out"
ERROR_TAIL_BYTES = 16_384
NO_SPACE = os.strerror(errno.ENOSPC)
NICENESS = 5  # who waits for an answer goes before who waits for a film
GIB = 2**30
SIGNALLED = 128  # a shell's convention, kept by bubblewrap: 128 + the signal's number

# Bubblewrap needs `/` to be a mount point. In a chroot it is none: bind `/` on a directory that certainly lies on a mount of its own,
# made private first so that nothing shows outside, and enter it. All of it is gone with the process.
INTO_A_MOUNT = 'mount --make-rprivate /proc && mount --rbind / /proc/tty && cd / && exec chroot /proc/tty "$@"'
IN_A_CHROOT = ("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", INTO_A_MOUNT, "sh")

# Bubblewrap asks to die with its parent only after it has begun, and a parent that is dead by then is never noticed. So what stands before
# the program says that it is there and waits for a line: nobody is there to write it, and nothing runs.
ONCE_TOLD = ("sh", "-c", 'echo && read -r go && exec "$@"', "sh")


class SandboxUnavailable(Exception):
    """Bubblewrap or ffmpeg cannot run here, so no film is touched; the message says what to do."""


class ToolFailed(Exception):
    """The program ended with an error; `errors` is the end of what it said."""

    def __init__(self, program: str, status: int, errors: str) -> None:
        super().__init__(f"{program} ended with {status}: {errors[-500:].strip()}")
        self.status = status
        self.errors = errors


class LimitExceeded(Exception):
    """The program was stopped because it used more than it was given; `limit` names what."""

    def __init__(self, program: str, limit: str) -> None:
        super().__init__(f"{program} was stopped: {limit}")
        self.limit = limit


class Limits(NamedTuple):
    """What one run may use. CPU seconds are summed over threads; `quiet_seconds` is how long it may go without a line of output."""

    cpu_seconds: int
    wall_seconds: float
    quiet_seconds: float = 300
    memory_bytes: int = 8 * GIB
    file_bytes: int = 64 * GIB
    output_bytes: int = 256 * GIB


class Sandbox:
    """A way into bubblewrap that was seen to work on this machine. Made by `open_sandbox`."""

    def __init__(self, way_in: Sequence[str]) -> None:
        self.way_in = tuple(way_in)

    async def run(
        self,
        program: str,
        arguments: Sequence[str],
        job: Path,
        limits: Limits,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> str:
        """Run `program` on `job`/source with `job`/out to write in; returns the end of its standard error.

        Raises ToolFailed and LimitExceeded; SandboxUnavailable, and OSError when the disk is full, which say nothing of the film.
        However it ends, cancelled too, its whole process group is gone and waited for.
        """
        out = job / "out"
        out.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(out, NOBODY, NOBODY)
        command = [*self.way_in, *_bubblewrap(job), *_limited(limits), *ONCE_TOLD, program, *arguments]
        async with _process(command) as process:
            try:
                errors = await asyncio.wait_for(_follow(process, out, limits, program, on_line), limits.wall_seconds)
            except TimeoutError:
                raise LimitExceeded(program, f"it ran for more than {limits.wall_seconds:,.0f} s") from None
            status = await process.wait()
        if status in (SIGNALLED + signal.SIGXCPU, SIGNALLED + signal.SIGKILL):
            raise LimitExceeded(program, f"it used more than {limits.cpu_seconds:,} s of CPU or too much memory")
        if status == SIGNALLED + signal.SIGXFSZ:
            raise LimitExceeded(program, f"it wrote a file larger than {limits.file_bytes:,} bytes")
        if status and NO_SPACE in errors:
            raise OSError(errno.ENOSPC, f"{program} has filled the disk", str(out))
        if errors.startswith("bwrap:"):
            raise SandboxUnavailable(errors.strip())
        if status:
            raise ToolFailed(program, status, errors)
        # A link left here would be followed by us, who may read and write more than it may.
        strange = [path.name for path in out.iterdir() if not stat.S_ISREG(path.lstat().st_mode)]
        if strange:
            raise ToolFailed(program, status, f"it left what is no plain file: {', '.join(sorted(strange))[:200]}")
        return errors


async def open_sandbox(scratch: Path) -> Sandbox:
    """A sandbox in which ffmpeg was just seen to run. Raises SandboxUnavailable; there is no unsandboxed way."""
    tools = {tool: shutil.which(tool) for tool in ("bwrap", "nice", "prlimit", "setpriv", "ffmpeg", "ffprobe")}
    if missing := [tool for tool, path in tools.items() if path is None]:
        raise SandboxUnavailable(
            f"{', '.join(missing)} not found; install the packages bubblewrap, util-linux and ffmpeg"
        )
    bubblewrap = str(tools["bwrap"])
    refusals = []
    for way_in in ((bubblewrap,), (*IN_A_CHROOT, bubblewrap)) if os.geteuid() == 0 else ((bubblewrap,),):
        sandbox = Sandbox(way_in)
        try:
            await sandbox.run("ffmpeg", ["-version"], scratch, Limits(cpu_seconds=30, wall_seconds=60))
        except (ToolFailed, LimitExceeded, SandboxUnavailable) as error:
            refusals.append(str(error))
        else:
            return sandbox
    raise SandboxUnavailable(
        f"bubblewrap cannot make a sandbox here ({'; '.join(refusals)}). No film is read without one. As root it needs CAP_SYS_ADMIN, "
        "else unprivileged user namespaces; in a container allow them (cap_add SYS_ADMIN, or seccomp and AppArmor unconfined); "
        "in a chroot /proc must be mounted"
    )


def _bubblewrap(job: Path) -> list[str]:
    command = [
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--die-with-parent",
        "--dev",
        "/dev",
    ]
    command += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path).lstrip("/"), str(path)]
        elif path.exists():
            command += ["--ro-bind", str(path), str(path)]
    # What bubblewrap makes on the way to a mount is root's alone; nobody must get through.
    command += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/job"]
    for path in (Path("/etc/alternatives"), Path("/etc/ld.so.cache")):
        if path.exists():
            command += ["--ro-bind", str(path), str(path)]
    for name in (SOURCE, JOINED):
        if (file := job / Path(name).name).exists():
            command += ["--ro-bind", str(file), name]
    command += ["--bind", str(job / "out"), OUT, "--chdir", OUT]
    if os.geteuid() == 0:
        # Root inside would still be root to the files it can see: change to nobody, keeping no way back.
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        command += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    return command


def _limited(limits: Limits) -> list[str]:
    return [
        *("nice", "-n", str(NICENESS)),
        "prlimit",
        f"--cpu={limits.cpu_seconds}",
        f"--as={limits.memory_bytes}",
        f"--fsize={limits.file_bytes}",
        "--nofile=1024",
        "--core=0",
    ]


@asynccontextmanager
async def _process(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Each thread would reserve an arena of its own, and address space is what is limited.
        env={"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C", "MALLOC_ARENA_MAX": "2"},
        cwd="/",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


async def _follow(
    process: asyncio.subprocess.Process, out: Path, limits: Limits, program: str, on_line: Callable[[str], None]
) -> str:
    """Read both outputs to their ends. Raises LimitExceeded when it goes quiet or writes too much."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    tail = asyncio.create_task(_tail(process.stderr))
    rest = b""
    try:
        await process.stdout.readline()
        process.stdin.write(b"go\n")
        process.stdin.close()
        while True:
            try:
                chunk = await asyncio.wait_for(process.stdout.read(65_536), limits.quiet_seconds)
            except TimeoutError:
                raise LimitExceeded(program, f"it made no progress for {limits.quiet_seconds:,.0f} s") from None
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                on_line(line.decode(errors="replace"))
            if not chunk:
                break
            if len(rest) > ERROR_TAIL_BYTES:
                raise LimitExceeded(program, "it wrote a line without end")
            if lines and lines[-1].startswith(b"progress=") and _size(out) > limits.output_bytes:
                raise LimitExceeded(program, f"it wrote more than {limits.output_bytes:,} bytes")
        if rest:
            on_line(rest.decode(errors="replace"))
        return await tail
    finally:
        tail.cancel()


async def _tail(stream: asyncio.StreamReader) -> str:
    kept = b""
    while chunk := await stream.read(65_536):
        kept = (kept + chunk)[-ERROR_TAIL_BYTES:]
    return kept.decode(errors="replace")


def _size(folder: Path) -> int:
    return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
