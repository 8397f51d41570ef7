"""What a process of the stack is: how it is laid out, started, asked and stopped."""

import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from compose.local.process import as_servant, servants_folder
from compose.local.stack import ROOT, CannotStart, Stack


class Service(ABC):
    """One of the processes that a stack keeps up."""

    name: ClassVar[str]
    waits_for: ClassVar[str]
    ports: ClassVar[tuple[str, ...]] = ()
    twins: ClassVar[bool] = False  # whether each port has a gRPC twin at +10,000
    start_patience_seconds: ClassVar[float] = 180  # seconds on a machine at rest, minutes on one that is busy
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_patience_seconds: ClassVar[float] = 10

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def prepare(self) -> None:  # noqa: B027
        """Lays out what the process needs. It may block, and may run again over what it did. Raises CannotStart."""

    @abstractmethod
    def command(self) -> list[str]:
        """Raises CannotStart when a program is missing."""

    def environment(self) -> dict[str, str]:
        """What it is told beside the stack's endpoints."""
        return {}

    @abstractmethod
    async def ready(self) -> bool:
        """Whether it does its work, asked again and again while it starts."""

    @property
    def folder(self) -> Path:
        """Where it is started."""
        return ROOT


class Server(Service):
    """A server of others': it runs as the servant, in a data folder of its own."""

    def prepare(self) -> None:
        servants_folder(self.folder)

    @property
    def folder(self) -> Path:
        return self.stack.data(self.name)

    def once(self, command: list[str], *, stdin: str = "") -> None:
        """Runs one of the server's own tools into its log. Raises CannotStart when the tool fails."""
        log = self.stack.log(self.name)
        with log.open("ab") as output:
            done = subprocess.run(
                as_servant(command, self.stack.folder, self.stack.opt),
                input=stdin.encode(),
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        if done.returncode:
            tool = Path(command[0]).name
            raise CannotStart(f"{self.name}: `{tool}` failed while laying out its data: see {log}")


def program(name: str) -> str:
    """Where it is. Raises CannotStart when it is not on the path, nor beside this Python."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}")
    if path is None:
        raise CannotStart(f"`{name}` is not on this machine: run `make up`, which installs it")
    return path
