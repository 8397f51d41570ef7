"""Real servers for a test run, started when the first test needs them: local processes, containers, or a stack that runs.

`ET_SERVERS=local` (as it is unset) starts own ones on free ports with data that are thrown away; `docker` starts the same in
containers; `stack` takes those of a running `make up`, apart by their prefix, which saves a developer the start.
"""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Collection
from pathlib import Path

from testcontainers.compose import DockerCompose

from compose.local.ports import is_free
from compose.local.stack import PORTS, PROGRAMS, ROOT, SERVERS, TWIN_OFFSET, Stack
from compose.settings import Settings
from tests.containers import start_containers
from tests.sweeping import sweep

START_SECONDS = 400
KEPT_LOGS = ROOT / "test-output" / "log"


class Servers:
    """The servers of one test run. Nothing starts before `need`; the addresses are known from the beginning."""

    def __init__(self, kind: str) -> None:
        if kind not in ("local", "docker", "stack"):
            raise ValueError(f"ET_SERVERS={kind}: it is local, docker or stack")
        self.kind = kind
        self.prefix = f"t{uuid.uuid4().hex[:6]}_"
        self.stack = Stack(Path(tempfile.mkdtemp(prefix="entertainmenttime-")))
        self.stack.folder.chmod(0o755)
        self.containers: list[DockerCompose] = []
        self.started: set[str] = set()
        self.starting = threading.Lock()
        ports = free_ports()
        if kind == "stack":
            running = Stack(ROOT / ".stack")
            ports |= {name: port for name, port in running.ports.items() if name not in PROGRAMS}
            shutil.copy(running.endpoints_file, self.stack.endpoints_file)
        self.stack.ports_file.write_text(json.dumps(ports))
        self.stack.lay_out()

    def endpoints(self, prefix: str) -> dict[str, str]:
        """The environment of a program that is to talk to these servers."""
        return {**self.stack.endpoints, "ET_PREFIX": prefix}

    def settings(self, prefix: str) -> Settings:
        values = {name.removeprefix("ET_").lower(): value for name, value in self.endpoints(prefix).items()}
        return Settings.model_validate(values)

    def need(self, names: Collection[str]) -> None:
        """Returns when all of them answer; those that are not up yet start together."""
        with self.starting:
            missing = [name for name in (*SERVERS, *PROGRAMS) if name in names and name not in self.started]
            local = [name for name in missing if self.kind == "local" or name in PROGRAMS]
            containers = [name for name in missing if self.kind == "docker" and name in SERVERS]
            if containers:
                self.containers.append(start_containers(containers, self.stack))
            if local:
                self.order("up", *local)
            self.started |= set(missing)

    def order(self, *words: str) -> None:
        """Raises RuntimeError with the stack's own words."""
        done = subprocess.run(
            [sys.executable, "-m", "compose.local", "--folder", str(self.stack.folder), *words],
            cwd=ROOT,
            env={**os.environ, "ET_PREFIX": self.prefix},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"the servers of the test run: {done.stdout.strip()} {done.stderr.strip()}")

    def close(self, *, keep_logs: bool) -> None:
        """Stops what was started and removes the data; the logs of a run that failed stay in `test-output/log`."""
        if self.started:
            self.order("down")
        for containers in self.containers:
            containers.stop()
        if self.kind == "stack":
            asyncio.run(sweep(self.settings(self.prefix)))
        if keep_logs:
            shutil.rmtree(KEPT_LOGS, ignore_errors=True)
            shutil.copytree(self.stack.folder / "log", KEPT_LOGS)
        shutil.rmtree(self.stack.folder)


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
