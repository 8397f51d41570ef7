"""Real servers for a test run, started when the first test needs them: local processes, containers, or a stack that runs.

`ET_SERVERS=local` (as it is unset) starts own ones on free ports with data that are thrown away; `docker` starts the same in
containers; `stack` takes those of a running `make up`, apart by their prefix, which saves a developer the start.
"""

import asyncio
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import psutil

from compose.local.ports import is_free
from compose.local.stack import PORTS, PROGRAMS, ROOT, SERVERS, TWIN_OFFSET, Stack
from compose.settings import Settings
from tests.containers import start_containers, stop_containers
from tests.sweeping import sweep

START_SECONDS = 400
LEAVE_SECONDS = 30
MARK = "TEST_RUN"  # in the environment of every process of a run: its folder
KEPT_LOGS = ROOT / "test-output" / "log"

Kind = Literal["local", "docker", "stack"]


class Run(NamedTuple):
    """What the processes of a test run agree on: whose servers, in what folder, and the prefix of the one system that runs on them."""

    kind: Kind
    folder: str
    prefix: str


class Servers:
    """The servers of one test run. Nothing starts before `need`; the addresses are known from the beginning.

    A kind begins a new run. Several processes may share one: each server is started once, by whoever needs it first, and `close` is
    the owner's. `prefix` begins all that a process of the tests makes there; `name` tells it from the others.
    """

    def __init__(self, run: Run | str, *, name: str = "") -> None:
        self.run = run if isinstance(run, Run) else new_run(run)
        self.stack = Stack(Path(self.run.folder))
        self.prefix = f"{self.run.prefix}{name and f'{name}_'}"
        self._started_file = self.stack.folder / "started.json"
        self._lock_file = self.stack.folder / "starting.lock"

    @property
    def kind(self) -> Kind:
        return self.run.kind

    def endpoints(self, prefix: str) -> dict[str, str]:
        """The environment of a program that is to talk to these servers."""
        return {**self.stack.endpoints, "ET_PREFIX": prefix}

    def settings(self, prefix: str) -> Settings:
        values = {name.removeprefix("ET_").lower(): value for name, value in self.endpoints(prefix).items()}
        return Settings.model_validate(values)

    def need(self, names: Collection[str]) -> None:
        """Returns when all of them answer; those that are not up yet start together."""
        with self._starting() as lock:
            started = self._started()
            missing = [name for name in (*SERVERS, *PROGRAMS) if name in names and name not in started]
            local = [name for name in missing if self.kind == "local" or name in PROGRAMS]
            containers = [name for name in missing if self.kind == "docker" and name in SERVERS]
            if containers:
                start_containers(containers, self.stack)
            if local:
                self.order("up", *local, lock=lock)
            if missing:
                self._started_file.write_text(json.dumps([*started, *missing]))

    def close(self, *, keep_logs: bool) -> None:
        """Stops what was started and removes the data; the logs of a run that failed stay in `test-output/log`."""
        end_all_of(self.run)
        if self._lock_file.exists():
            with self._starting() as lock:
                self.order("down", lock=lock)
                if self.kind == "docker":
                    stop_containers(self.stack)
        if self.kind == "stack":
            asyncio.run(sweep(self.settings(self.run.prefix)))
        if keep_logs:
            shutil.rmtree(KEPT_LOGS, ignore_errors=True)
            shutil.copytree(self.stack.folder / "log", KEPT_LOGS)
        shutil.rmtree(self.stack.folder)

    def _started(self) -> list[str]:
        return json.loads(self._started_file.read_text()) if self._started_file.exists() else []

    @contextmanager
    def _starting(self) -> Iterator[int]:
        """One thread of one process at a time. Yields what holds the lock: also in the hands of a command, should we die before it."""
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()

    def order(self, *words: str, lock: int | None = None) -> None:
        """Raises RuntimeError with the stack's own words."""
        done = subprocess.run(
            [sys.executable, "-m", "compose.local", "--folder", str(self.stack.folder), *words],
            cwd=ROOT,
            env={**os.environ, "ET_PREFIX": self.run.prefix, "STACK_FOLDER": str(self.stack.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            pass_fds=[] if lock is None else [lock],
        )
        if done.returncode:
            raise RuntimeError(f"the servers of the test run: {done.stdout.strip()} {done.stderr.strip()}")


def new_run(kind: str) -> Run:
    """A folder with free ports and fresh secrets, or those of the stack that runs, and a prefix that nobody else has."""
    if kind not in get_args(Kind):
        raise ValueError(f"ET_SERVERS={kind}: it is local, docker or stack")
    folder = Path(tempfile.mkdtemp(prefix="entertainmenttime-"))
    folder.chmod(0o755)
    stack, ports = Stack(folder), free_ports()
    if kind == "stack":
        running = Stack(ROOT / ".stack")
        ports |= {name: port for name, port in running.ports.items() if name not in PROGRAMS}
        shutil.copy(running.endpoints_file, stack.endpoints_file)
    stack.ports_file.write_text(json.dumps(ports))
    stack.lay_out()
    return Run(kind, str(folder), f"t{uuid.uuid4().hex[:6]}_")


def end_all_of(run: Run) -> None:
    """Ends what a process of the tests began and left, as it was itself killed: a worker, a command, the supervisor of another stack."""
    left = [process for process in psutil.process_iter() if is_of(run, process) and process.pid != os.getpid()]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            with suppress(psutil.Error):
                end(process)
        left = psutil.wait_procs(left, timeout=LEAVE_SECONDS)[1]


def is_of(run: Run, process: psutil.Process) -> bool:
    """The stack's own processes, which it stops in order, have a mark of their own beside."""
    try:
        told = process.environ()
    except psutil.Error:
        return False
    return told.get(MARK) == run.folder and told.get("STACK_FOLDER") != run.folder


def free_ports() -> dict[str, int]:
    """A free port for each name, its gRPC twin free as well."""
    found: dict[str, int] = {}
    for name in PORTS:
        while name not in found:
            port = free_port()
            if port not in found.values():
                found[name] = port
    return found


def free_port() -> int:
    """A port that is free, and its gRPC twin as well."""
    while True:
        port = random.randrange(10_300, 22_000)
        if is_free(port) and is_free(port + TWIN_OFFSET):
            return port
