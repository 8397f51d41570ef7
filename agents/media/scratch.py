"""A private directory for the films in work, and an end to those that killed workers left behind."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A fresh directory of this process, gone at the end. Those of processes that are no more are cleared first.

    Raises PermissionError when the place is taken by somebody else.
    """
    home = Path(tempfile.gettempdir()) / f"entertainmenttime-media-{os.geteuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{home} belongs to somebody else; remove it, or set TMPDIR")
    # One process at a time, so that nobody clears a folder between its making and its locking.
    with (home / "lock").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        for folder in home.iterdir():
            if folder.is_dir():
                _clear_if_left(folder)
        own = Path(tempfile.mkdtemp(dir=home))
        lock = (own / "lock").open("w")
        # Held as long as this process lives, and by nobody after it, however it ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _clear_if_left(folder: Path) -> None:
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return  # in use
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)  # left in the moment of its making
