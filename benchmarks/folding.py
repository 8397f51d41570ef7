"""One projection folded from the start of a log, by the process that rebuilds, killed on the way."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import psutil

from agents.handover import Partition
from agents.log_ends import open_log_ends
from agents.stores import partitions_of
from benchmarks.system import System
from projections.queries.versions import Version

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 600.0


class Folded(NamedTuple):
    """How many records were folded in how long, from when the first batch was written to when the last was; and the CPU that the processes
    spent, all in all."""

    records: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.records / self.seconds


async def fold(system: System, version: Version, topic: str, *, processes: int = 1, kill: bool = False) -> Folded:
    """Fold the partitions of `topic`; with `kill` every process is killed once, half way, and started again."""
    partitions = [partition for partition in partitions_of(version.projection) if partition.topic == topic]
    sink = system.stores.sink(version)
    await sink.prepare()
    await sink.tick(datetime.now(UTC))
    checkpoints = system.stores.checkpoints(version)
    ends = await _ends(system, partitions)
    dealt = [partitions[number::processes] for number in range(processes)]
    running = [await _start(system, version, own) for own in dealt]
    cpu, first, began, killed = 0.0, 0, 0.0, False
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        folded = sum((await checkpoints.next_offsets(partitions)).values())
        if folded and not first:
            first, began = folded, time.monotonic()
        if kill and not killed and folded >= ends / 2:
            cpu += sum(_cpu(process) for process in running)
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            running, killed = [await _start(system, version, own) for own in dealt], True
        if folded >= ends:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"{version.full_name} had folded {folded:,} of {ends:,} after {PATIENCE_SECONDS:g} s")
        if any(process.returncode for process in running):
            raise RuntimeError(f"a process that folds {version.full_name} ended: {[p.returncode for p in running]}")
    ended = time.monotonic()
    cpu += sum(_cpu(process) for process in running)
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
    return Folded(ends - first, ended - began, cpu)


async def _ends(system: System, partitions: Sequence[Partition]) -> int:
    async with open_log_ends(system.settings) as log:
        return sum((await log.ends(partitions)).values())


async def _start(system: System, version: Version, partitions: Sequence[Partition]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "agents.refolding",
            version.projection,
            str(version.number),
            "0",
            *map(str, partitions),
        ),
        env={**os.environ, "ET_PREFIX": system.settings.prefix},
        stdin=asyncio.subprocess.PIPE,
    )


def _cpu(process: asyncio.subprocess.Process) -> float:
    try:
        return sum(psutil.Process(process.pid).cpu_times()[:2])
    except psutil.Error:  # it has just ended
        return 0.0
