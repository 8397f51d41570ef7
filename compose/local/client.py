"""Orders to a stack's supervisor, which is started when there is none, and its progress shown as it comes."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from compose.local.stack import ROOT, CannotStart, Stack
from compose.local.supervisor import end_forgotten

SUPERVISOR_PATIENCE_SECONDS = 30.0
MARKS = {"starting": "[yellow]…[/]", "up": "[green]✓[/]", "stopping": "[yellow]…[/]", "down": "[green]✓[/]"}


def connect(stack: Stack) -> socket.socket | None:
    """None when no supervisor listens."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        folder = os.open(stack.run, os.O_PATH)
        try:
            connection.connect(f"/proc/self/fd/{folder}/supervisor.sock")
        finally:
            os.close(folder)
    except OSError:
        connection.close()
        return None
    return connection


def start_supervisor(stack: Stack) -> socket.socket:
    """Raises CannotStart when it dies or does not listen."""
    log = stack.log("supervisor")
    with log.open("ab") as output:
        process = subprocess.Popen(
            on_a_mounted_root([sys.executable, "-m", "compose.local", "--folder", str(stack.folder), "supervisor"]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
        )
    deadline = time.monotonic() + SUPERVISOR_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if connection := connect(stack):
            return connection
        if process.poll():
            break
        time.sleep(0.05)
    raise CannotStart(f"the supervisor does not start: see {log}")


# Given up where the mount would be seen outside of our namespace.
MOUNT_ROOT = """
mount --bind / /mnt
if [ "$(findmnt -n -o PROPAGATION /mnt)" = private ]; then
    umount /mnt
    mount --rbind / /mnt
    exec chroot /mnt env --chdir="$0" "$@"
fi
umount /mnt
exec "$@"
"""


def on_a_mounted_root(command: list[str]) -> list[str]:
    """`command`, with a root folder that is a mount point: Java's file stores and bubblewrap's pivot ask for one.

    It is one everywhere but in a plain chroot, where a mount namespace of the stack's own gets it right.
    """
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    if os.geteuid() != 0 or any(line.split()[1] == "/" for line in mounts):
        return command
    return ["unshare", "--mount", "--propagation", "unchanged", "sh", "-ec", MOUNT_ROOT, str(ROOT), *command]


def talk(connection: socket.socket, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Raises CannotStart with the supervisor's words when the order failed.

    Returns when the supervisor has gone as well, where it has nothing left to keep up.
    """
    with connection, connection.makefile("rw") as lines:
        lines.write(json.dumps(order) + "\n")
        lines.flush()
        for text in lines:
            line: dict[str, Any] = json.loads(text)
            if "failed" in line:
                wait_until_gone(line.get("leaves"))
                raise CannotStart(line["failed"])
            yield line
            if "done" in line:
                wait_until_gone(line.get("leaves"))
                return
    raise CannotStart("the supervisor hung up before it was done")


def order(stack: Stack, what: dict[str, Any], console: Console) -> None:
    for line in talk(connect(stack) or start_supervisor(stack), what):
        if "state" in line:
            text = f" {MARKS[line['state']]} {line['name']:<14} {line['state']:<9} [dim]{line['detail']}[/]"
            console.print(text, soft_wrap=True)


def ask_status(stack: Stack) -> dict[str, dict[str, Any]]:
    """What the supervisor keeps up; nothing when there is none."""
    connection = connect(stack)
    answers = list(talk(connection, {"do": "status"})) if connection else []
    kept: dict[str, dict[str, Any]] = answers[-1]["kept"] if answers else {}
    return kept


def stop(stack: Stack, names: Sequence[str], console: Console) -> None:
    """These; without `names` everything, also what a killed supervisor left behind."""
    if connection := connect(stack):
        for line in talk(connection, {"do": "down", "names": list(names)}):
            if line.get("state") == "down":
                console.print(f" {MARKS['down']} {line['name']:<14} down")
    elif stack.run.exists() and not names:
        end_forgotten(stack)
        for left in (stack.pid_file("supervisor"), stack.run / "supervisor.sock"):
            left.unlink(missing_ok=True)


def wait_until_gone(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).wait(SUPERVISOR_PATIENCE_SECONDS)
