"""The local stack as its user meets it: started, killed, asked and stopped by the command line, on ports of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from compose.local.stack import ROOT, Stack
from tests.servers import free_ports

PATIENCE_SECONDS = 30.0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / ".stack")
    stack.folder.mkdir()
    stack.ports_file.write_text(json.dumps(free_ports()))
    yield stack
    order(stack, "down")


def order(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compose.local", "--folder", str(stack.folder), *words],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def pid_of(stack: Stack, name: str) -> int:
    return int(stack.pid_file(name).read_text())


def eventually(true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not (answer := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


def living(stack: Stack) -> list[str]:
    """Every process that works in the stack's folder or was told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            told = str(stack.folder) in process.cmdline() or Path(process.cwd()).is_relative_to(stack.folder)
            if told and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
        except psutil.Error:
            continue
    return found


def test_what_is_killed_is_up_again_within_a_second_and_its_pid_file_follows(stack: Stack) -> None:
    """The fastest of three: a machine that has other things to do makes one slow, and each waits longer than the one before."""
    assert order(stack, "up", "redis").returncode == 0
    taken_seconds: list[float] = []
    for _ in range(3):
        first, began = pid_of(stack, "redis"), time.monotonic()
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda first=first: pid_of(stack, "redis") != first)  # type: ignore[misc]
        assert psutil.pid_exists(pid_of(stack, "redis"))
        taken_seconds.append(time.monotonic() - began)
    assert min(taken_seconds) < 1


def test_who_dies_young_again_and_again_waits_ever_longer(stack: Stack) -> None:
    order(stack, "up", "redis")
    for _ in range(4):
        pid = pid_of(stack, "redis")
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda pid=pid: pid_of(stack, "redis") != pid)  # type: ignore[misc]
    pauses = [
        line.rsplit("again in ")[1] for line in stack.log("supervisor").read_text().splitlines() if "again in" in line
    ]
    assert pauses == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]


def test_a_second_up_starts_nothing_that_is_up(stack: Stack) -> None:
    order(stack, "up", "redis")
    first = pid_of(stack, "redis")
    assert order(stack, "up", "redis").returncode == 0
    assert pid_of(stack, "redis") == first


def test_down_leaves_no_process_and_no_pid_file(stack: Stack) -> None:
    order(stack, "up", "redis", "s3")
    assert living(stack)
    assert order(stack, "down").returncode == 0
    assert living(stack) == []
    assert list(stack.run.iterdir()) == []


def test_down_stops_what_is_named_and_leaves_the_rest_up(stack: Stack) -> None:
    order(stack, "up", "redis", "s3")
    first = pid_of(stack, "s3")
    assert order(stack, "down", "redis").returncode == 0
    assert not stack.pid_file("redis").exists()
    assert pid_of(stack, "s3") == first
    assert psutil.pid_exists(first)
    assert order(stack, "up", "redis").returncode == 0


def test_down_also_ends_what_a_killed_supervisor_left(stack: Stack) -> None:
    order(stack, "up", "redis")
    os.kill(pid_of(stack, "supervisor"), signal.SIGKILL)
    assert order(stack, "down").returncode == 0
    assert living(stack) == []


def test_up_takes_over_from_a_killed_supervisor(stack: Stack) -> None:
    order(stack, "up", "redis")
    first = pid_of(stack, "redis")
    os.kill(pid_of(stack, "supervisor"), signal.SIGKILL)
    assert order(stack, "up", "redis").returncode == 0
    assert pid_of(stack, "redis") != first
    assert not psutil.pid_exists(first)


def test_a_server_that_dies_while_starting_is_a_sentence_with_its_log_and_nothing_stays_up(stack: Stack) -> None:
    order(stack, "up", "redis")
    order(stack, "down")
    manifest = stack.data("redis") / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("this is no manifest\n")
    failed = order(stack, "up", "redis", "s3")
    assert failed.returncode == 1
    assert f"redis died while starting (exit code 1): see {stack.log('redis')}" in failed.stdout
    assert living(stack) == []


def test_a_port_in_use_stops_the_start_before_anything_runs(stack: Stack) -> None:
    other = Stack(stack.folder.parent / "other")
    other.folder.mkdir()
    other.ports_file.write_text(json.dumps({**free_ports(), "redis": stack.ports["redis"]}))
    order(stack, "up", "redis")
    refused = order(other, "up", "redis", "s3")
    assert refused.returncode == 1
    assert (
        f"port {stack.ports['redis']}, which redis needs, is taken by process {pid_of(stack, 'redis')}"
        in refused.stdout
    )
    assert living(other) == []


def test_status_shows_each_process_with_its_port_pid_and_memory(stack: Stack) -> None:
    order(stack, "up", "redis")
    rows = {line.split()[0]: line.split() for line in order(stack, "status").stdout.splitlines() if line.strip()}
    assert rows["redis"][1:4] == ["up", str(stack.ports["redis"]), str(pid_of(stack, "redis"))]
    assert int(rows["redis"][4]) > 0
    assert rows["gateway"][1] == "down"


def test_clean_drops_the_data_and_a_new_start_is_empty(stack: Stack) -> None:
    order(stack, "up", "redis")
    assert order(stack, "clean").returncode == 0
    assert not stack.data("redis").exists()
    assert living(stack) == []
