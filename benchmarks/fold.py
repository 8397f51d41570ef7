"""The fold: a whole worker, exactly once into three stores, against a bare loop that only reads, decodes and counts."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agents.stores import open_stores
from benchmarks.pairs import Comparison, Measured, alternate
from compose.connections import open_postgres, open_redis
from compose.provisioning import provision
from compose.settings import Settings
from projections.queries.leaderboard import Leaderboard
from projections.queries.redis_checkpoints import RedisCheckpoints
from projections.queries.versions import Versions, declared
from projections.sinks.sink import Sink, StoreUnavailable
from schemas.envelope import encode
from schemas.events import VideoViewed
from schemas.streams import streams

VIEWS = 150_000
VIDEOS = 10_000
TWICE_EVERY = 20  # five in a hundred are sent twice
BATCH = 5_000
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 240.0
COMPARED = 1_000  # films of the board that are compared one by one


async def compare_fold(settings: Settings) -> Comparison:
    """Views a second, folded anew in each pair from the same log of a system of its own."""
    own = settings.model_copy(update={"prefix": f"bench{uuid.uuid4().hex[:6]}_", "worker_id": ""})
    async with _own_system(own) as sinks:
        expected = await _produce(own)
        records = VIEWS + VIEWS // TWICE_EVERY

        async def ours() -> Measured:
            for sink in sinks:
                await sink.drop()
            return await _fold(own, records, expected)

        return await alternate(
            "fold: three projections of views, exactly once",
            "views/s",
            ours,
            "getmany, decode, count; nothing stored",
            lambda: _bare_loop(own, records),
        )


@asynccontextmanager
async def _own_system(own: Settings) -> AsyncIterator[list[Sink]]:
    os.environ |= {"ET_PREFIX": own.prefix, "ET_WORKER_ID": ""}
    await provision(own, streams())
    async with open_stores(own) as stores:
        made = [stores.sink(declared(name)) for name in streams().projections]
        try:
            yield made
        finally:
            for sink in made:
                await sink.drop()
            await stores.pool.execute(f'drop schema "{own.postgres_schema}" cascade')
            await _delete_topics(own)


async def _delete_topics(own: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=own.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if name.startswith(own.prefix)])
    finally:
        await admin.close()


async def _produce(own: Settings) -> Counter[str]:
    """Views over ten thousand films, the n-th film watched as 1/n. Returns how often each must count."""
    chosen = random.Random(7).choices(range(VIDEOS), weights=[1 / (n + 1) for n in range(VIDEOS)], k=VIEWS)
    now, expected = datetime.now(UTC), Counter(f"film-{number}" for number in chosen)
    producer = AIOKafkaProducer(bootstrap_servers=own.kafka_bootstrap, max_batch_size=256 * 1024, linger_ms=5)
    await producer.start()
    try:
        for index, number in enumerate(chosen):
            event = VideoViewed(view_id=f"view-{index}", video_id=f"film-{number}", occurred_at=now)
            message = encode(event, event_id=event.view_id, source="/benchmark")
            for _ in range(2 if index % TWICE_EVERY == 0 else 1):
                await producer.send(own.named("views"), message.value, message.key, headers=message.headers)
        await producer.flush()
    finally:
        await producer.stop()
    return expected


async def _fold(own: Settings, records: int, expected: Counter[str]) -> Measured:
    worker = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "faust",
            "-A",
            "agents",
            "--loop",
            "uvloop",
            "worker",
            "--without-web",
            "--loglevel",
            "warn",
        ),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with open_redis(own) as redis, open_postgres(own) as pool:
            version = declared("leaderboard").number
            board = RedisCheckpoints(redis, own.prefix, "leaderboard", version=version)
            began, first = await _until(worker, lambda: _behind(board, pool), 1)
            cpu = sum(psutil.Process(worker.pid).cpu_times()[:2])
            ended, _ = await _until(worker, lambda: _behind(board, pool), records)
            cpu = sum(psutil.Process(worker.pid).cpu_times()[:2]) - cpu
            wrong = await _differences(Leaderboard(redis, own.prefix, Versions()), pool, expected)
        return Measured((records - first) / (ended - began), cpu, wrong)
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signal.SIGTERM)
        await worker.wait()


async def _behind(board: RedisCheckpoints, pool: Any) -> int:
    """How many records the slowest of the projections of views has folded."""
    found = await board.next_offsets(("views", partition) for partition in range(streams().topics["views"].partitions))
    query = "select projection, sum(next_offset)::bigint from checkpoints where topic = 'views' group by 1"
    stored = dict(await pool.fetch(query))
    folded: int = min(sum(found.values()), stored.get("views", 0), stored.get("statistics", 0))
    return folded


async def _until(worker: asyncio.subprocess.Process, folded: Any, wanted: int) -> tuple[float, int]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(StoreUnavailable):
            if (count := await folded()) >= wanted:
                return time.monotonic(), count
        if worker.returncode is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker had not folded {wanted:,} records after {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(LOOK_SECONDS)


async def _differences(board: Leaderboard, pool: Any, expected: Counter[str]) -> str:
    top = {item.video_id: item.views for item in (await board.top(COMPARED, "all_time")).items}
    hourly = dict(await pool.fetch("select video_id, sum(views)::bigint from hourly_v1 group by 1"))
    raw = dict(await pool.fetch("select video_id, count(*) from views_v2 group by 1"))
    wrong = [name for name, found in (("hourly", hourly), ("raw", raw)) if found != expected]
    if len(top) != min(COMPARED, len(expected)) or any(expected[video] != views for video, views in top.items()):
        wrong.append("board")
    return f"wrong totals: {', '.join(wrong)}" if wrong else ""


async def _bare_loop(own: Settings, records: int) -> Measured:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=own.kafka_bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
    )
    await consumer.start()
    try:
        partitions = streams().topics["views"].partitions
        consumer.assign([TopicPartition(own.named("views"), number) for number in range(partitions)])
        counted: Counter[str] = Counter()
        began, cpu = time.monotonic(), time.process_time()
        while counted.total() < records:
            for batch in (await consumer.getmany(timeout_ms=100, max_records=BATCH)).values():
                counted.update(orjson.loads(record.value)["video_id"] for record in batch)
        return Measured(records / (time.monotonic() - began), time.process_time() - cpu)
    finally:
        await consumer.stop()
