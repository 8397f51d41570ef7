"""One process: started detached with its own log and pid file, and stopped so that nothing of it stays behind."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

SERVANT = "nobody"  # who runs the servers when we are root, since Postgres and Elasticsearch refuse to run as root


async def start(
    command: Sequence[str | Path], *, log: Path, pid_file: Path, environment: Mapping[str, str], folder: Path
) -> Process:
    """The process leads a session of its own, so that its children can be ended with it."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    fresh = pid_file.with_suffix(".new")
    fresh.write_text(f"{process.pid}\n")
    fresh.replace(pid_file)
    return process


async def stop(process: Process, *, how: signal.Signals, patience_seconds: float) -> None:
    """Asks with `how`, and kills what is still there after `patience_seconds`, children included."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
    try:
        await asyncio.wait_for(process.wait(), patience_seconds)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    end_session(process.pid)


def end_session(leader: int) -> None:
    """Kills what a dead leader left in its session: a server's child that lives on would hold its port."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def forgotten(pid_file: Path, folder: Path) -> psutil.Process | None:
    """The live process of a pid file whose supervisor is gone; None where the pid means another process by now.

    Ours carry the stack's mark in their environment, or, where they write over that (Redis, Postgres), work in its folder.
    """
    try:
        process = psutil.Process(int(pid_file.read_text()))
        marked = process.environ().get("STACK_FOLDER") == str(folder)
        ours = marked or Path(process.cwd()).is_relative_to(folder)
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.Error):
        return None


def as_servant(command: Sequence[str | Path], *folders: Path) -> list[str]:
    """`command`, which needs what lies in `folders`, as it runs without root's rights; as it is for anyone but root.

    A checkout below a closed folder (/root is 0700) is out of the servant's reach: it then keeps the one right to walk
    through folders, CAP_DAC_READ_SEARCH, and no other. (Without `no_setuid_fixup`, access(2) does not see that right,
    and Java believes its files missing.)
    """
    plain = [str(part) for part in command]
    if os.geteuid() != 0:
        return plain
    setpriv = ["setpriv", f"--reuid={SERVANT}", f"--regid={pwd.getpwnam(SERVANT).pw_gid}", "--clear-groups"]
    if not all(map(open_to_all, folders)):
        walking = "+dac_read_search"
        setpriv += [f"--inh-caps={walking}", f"--ambient-caps={walking}", "--securebits=+no_setuid_fixup"]
    return [*setpriv, "--", *plain]


def open_to_all(folder: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))


def servants_folder(folder: Path) -> Path:
    """`folder`, made when missing, owned by the servant and closed to others, as Postgres asks."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        shutil.chown(folder, SERVANT, pwd.getpwnam(SERVANT).pw_gid)
    return folder


def servants_file(file: Path, text: str) -> None:
    """`file` with `text`, for the servant's eyes alone: it may hold a password."""
    file.touch(mode=0o600)
    file.write_text(text)
    if os.geteuid() == 0:
        shutil.chown(file, SERVANT)
