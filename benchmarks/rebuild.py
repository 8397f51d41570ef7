"""A rebuild of millions of views while others watch and ask: how fast, what it does to those who ask, and what memory it takes."""

import asyncio
import contextlib
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psutil

from agents.log_ends import open_log_ends
from agents.rebuilding import WORKERS, Rebuilding
from agents.registry import register_declared
from agents.stores import partitions_of
from benchmarks.films import announce
from benchmarks.folding import fold
from benchmarks.system import System
from benchmarks.traffic import A_SECOND, LIVE, traffic
from benchmarks.views import append_views, records_of
from projections.queries.leaderboard import Leaderboard
from projections.queries.versions import declared
from schemas.streams import streams
from tests.servers import Servers
from tests.working import until

VIEWS, FEWER = 5_000_000, 500_000
OVER = timedelta(days=30)
CATCHING_UP = 2  # processes
QUIET_SECONDS = 40.0
PAIRS = 3
LOOK_SECONDS = 0.25
PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
COMPARED = 1_000  # films
VACUUM_SECONDS = WARM_UP_SECONDS = 300.0


class Rebuilt(NamedTuple):
    """What one rebuild did: events a second, most memory of its processes in bytes, and what was wrong, if anything."""

    per_second: float
    peak_bytes: int
    wrong: str


class Round(NamedTuple):
    """One pair: a rebuild and a replay in memory, each in events a second; p99 of the reads beside each, and beside neither."""

    rebuilt: Rebuilt
    per_second: tuple[float, float]
    p99_ms: Sequence[float]
    reads: int
    failed: Sequence[str]


async def compare_rebuild(small: System, system: System, servers: Servers) -> str:
    """Sentences: the pace beside a fold in memory in as many processes, the reads, the memory."""
    fewer = await _rebuild(small, FEWER, await append_views(small, FEWER, over=OVER, copied=True))
    expected = await append_views(system, VIEWS, over=OVER, copied=True)
    await _catch_up(system)
    await asyncio.to_thread(servers.need, {"gateway", "worker"})
    await announce(system.settings, LIVE)
    await _warm_up(system)
    rounds = [await _round(system, expected) for _ in range(PAIRS)]
    ours, theirs = (statistics.median(figures) for figures in zip(*(one.per_second for one in rounds), strict=True))
    live, replay, quiet = (statistics.median(figures) for figures in zip(*(one.p99_ms for one in rounds), strict=True))
    most = statistics.median(one.rebuilt.peak_bytes for one in rounds)
    wrong = [why for why in (fewer.wrong, *(one.rebuilt.wrong for one in rounds)) if why]
    failed = [why for one in rounds for why in one.failed]
    verdict = f"{len(failed)} requests failed: {failed[0]}" if failed else wrong[0] if wrong else "right"
    return (
        f"rebuild of {VIEWS:,} views ({WORKERS} of its processes on {os.cpu_count()} processors) under {A_SECOND} writes and "
        f"{A_SECOND} reads a second: {ours:,.0f} views/s, {theirs:,.0f} folded in memory ({ours / theirs:.2f}); "
        f"reads p99 {live:.1f} ms, quiet {quiet:.1f} ms "
        f"({live / quiet:.2f}), while folded in memory {replay:.1f} ms ({replay / quiet:.2f}), {rounds[0].reads:,} reads; "
        f"memory {most / 1e6:.0f} MB, of {FEWER:,} views {fewer.peak_bytes / 1e6:.0f} MB ({most / fewer.peak_bytes:.2f}); answers {verdict}"
    )


async def _round(system: System, expected: Counter[str]) -> Round:
    async with traffic(str(system.settings.gateway_url)) as quiet:
        await asyncio.sleep(QUIET_SECONDS)
    async with traffic(str(system.settings.gateway_url)) as live:
        rebuilt = await _rebuild(system, VIEWS, expected)
    async with traffic(str(system.settings.gateway_url)) as meanwhile:
        in_memory = await _in_memory(system)
    of_each = live, meanwhile, quiet
    failed = [why for one in of_each for why in one.failed]
    p99_ms = [statistics.quantiles(one.seconds, n=100)[98] * 1_000 for one in of_each]
    return Round(rebuilt, (rebuilt.per_second, in_memory), p99_ms, len(live.seconds), failed)


async def _rebuild(system: System, views: int, expected: Counter[str]) -> Rebuilt:
    version = await system.begin("leaderboard")
    try:
        began = time.monotonic()
        async with _peak() as peak:
            await Rebuilding(system.settings, system.stores, version, workers=WORKERS).run(lambda progress: None)
        seconds = time.monotonic() - began
        board = Leaderboard(system.stores.redis, system.settings.prefix, system.answering(version))
        top = {item.video_id: item.views for item in (await board.top(COMPARED, "all_time")).items}
        # What is watched meanwhile are other films, so that these are known exactly.
        differing = [film for film in top if film in expected and top[film] != expected[film]]
        wrong = f"{len(differing)} films differ" if differing or not top else ""
        return Rebuilt(records_of(views) / seconds, peak[0], wrong)
    finally:
        await system.drop(version)


@asynccontextmanager
async def _peak() -> AsyncIterator[list[int]]:
    """The most memory that each process of a rebuild had, added up, in bytes.

    Linux keeps it (VmHWM), what processes share counted for each. To add up their shares by looking at their pages, often enough not to
    miss the most, took a seventh of a core, and those who waited for an answer waited for that.
    """
    most = [0]
    of_each: dict[int, int] = {}

    async def look() -> None:
        while True:
            of_each.update(_peaks())
            most[0] = sum(of_each.values())
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield most
    finally:
        looking.cancel()


def _peaks() -> Iterator[tuple[int, int]]:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if "agents.refolding" in child.cmdline() and (
                found := PEAK.search(Path(f"/proc/{child.pid}/status").read_text())
            ):
                yield child.pid, int(found[1]) * 1_024


async def _catch_up(system: System) -> None:
    """Fold the views into the versions that answer, as a worker would have done by now."""
    await register_declared(system.stores.pool, streams())
    for name in streams().projections:
        if any(partition.topic == "views" for partition in partitions_of(name)):
            await fold(system, declared(name), "views", processes=CATCHING_UP)
    # What its worker would do within a minute, and Postgres by itself after so many rows, in the midst of what is measured.
    await system.stores.sink(declared("leaderboard")).tick(datetime.now(UTC) + timedelta(minutes=1))
    await system.stores.pool.execute("vacuum (analyze)", timeout=VACUUM_SECONDS)


async def _warm_up(system: System) -> None:
    """The first view of each partition has the worker read again what was appended in the last six hours: here, all there is."""
    async with traffic(str(system.settings.gateway_url)):
        await asyncio.sleep(QUIET_SECONDS)

    async def has_folded_all() -> bool:
        async with open_log_ends(system.settings) as log:
            ends = await log.ends(partitions_of("leaderboard"))
        folded = await system.stores.checkpoints(declared("leaderboard")).next_offsets(ends)
        return all(folded[partition] >= end for partition, end in ends.items())

    await until(has_folded_all, seconds=WARM_UP_SECONDS)


async def _in_memory(system: System) -> float:
    partitions = range(streams().topics["views"].partitions)
    dealt = [list(map(str, partitions[number::WORKERS])) for number in range(WORKERS)]
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.replay", *own),
            env={**os.environ, "ET_PREFIX": system.settings.prefix},
            stdout=asyncio.subprocess.PIPE,
        )
        for own in dealt
    ]
    began = time.monotonic()
    said = [out for out, _ in await asyncio.gather(*(process.communicate() for process in running))]
    seconds = time.monotonic() - began
    found = [re.search(rb"measured (\S+) (\d+)", out) for out in said]
    if not all(found):
        raise RuntimeError("a replay in memory measured nothing")
    return records_of(VIEWS) / seconds
