"""The fold into Redis: six windows, exactly once, killed on the way; against loops that do less, or do it one by one."""

import asyncio
import re
import sys
import time
from collections import Counter
from datetime import timedelta
from typing import get_args

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.folding import PATIENCE_SECONDS, fold
from benchmarks.pairs import Comparison, Measured, alternate
from benchmarks.system import System
from benchmarks.views import append_views, records_of
from projections.queries.leaderboard import Leaderboard, Timeframe
from schemas.streams import streams

VIEWS = 2_000_000
OVER = timedelta(minutes=30)  # all in the last hour, so that each window holds each view
ONE_BY_ONE = 30_000  # records that are enough to know the pace of who goes one by one
BATCH = 5_000
COMPARED = 1_000  # films of each window


async def compare_board(system: System, views: int = VIEWS) -> list[Comparison]:
    """Views a second into the board, against a bare loop, a per-event agent and a per-event consumer."""
    expected = await append_views(system, views, over=OVER)
    records = records_of(views)

    async def ours() -> Measured:
        version = await system.begin("leaderboard")
        try:
            folded = await fold(system, version, "views", kill=True)
            board = Leaderboard(system.stores.redis, system.settings.prefix, system.answering(version))
            return Measured(folded.per_second, folded.cpu_seconds, await _wrong(board, expected))
        finally:
            await system.drop(version)

    return await alternate(
        f"board: {views:,} views, killed on the way",
        "views/s",
        ours,
        {
            "getmany, decode, count; nothing stored": lambda: _bare_loop(system, records),
            "a Faust agent, Redis awaited for each": lambda: _one_by_one("benchmarks.agent"),
            "a consumer, Redis and Postgres awaited for each": lambda: _one_by_one("benchmarks.consumer"),
        },
    )


async def _wrong(board: Leaderboard, expected: Counter[str]) -> str:
    for name in get_args(Timeframe):
        top = {item.video_id: item.views for item in (await board.top(COMPARED, name)).items}
        if len(top) != min(COMPARED, len(expected)) or any(expected[film] != views for film, views in top.items()):
            return f"wrong totals in the window {name}"
    return ""


async def _bare_loop(system: System, records: int) -> Measured:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=system.settings.kafka_bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
    )
    await consumer.start()
    try:
        partitions = streams().topics["views"].partitions
        consumer.assign([TopicPartition(system.settings.named("views"), number) for number in range(partitions)])
        counted: Counter[str] = Counter()
        began, cpu = time.monotonic(), time.process_time()
        while counted.total() < records:
            for batch in (await consumer.getmany(timeout_ms=100, max_records=BATCH)).values():
                counted.update(orjson.loads(record.value)["video_id"] for record in batch)
        return Measured(records / (time.monotonic() - began), time.process_time() - cpu)
    finally:
        await consumer.stop()


async def _one_by_one(module: str) -> Measured:
    """A program that takes the first records one by one, and prints how many a second and the CPU seconds it spent."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(ONE_BY_ONE)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    found = re.search(rb"^measured (\S+) (\S+)$", out, re.M)
    if found is None:
        raise RuntimeError(f"{module} measured nothing")
    return Measured(float(found[1]), float(found[2]))
