"""The worker on real servers: what is in the log is folded, once, whatever else lies beside it."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from agents.handover import Batch
from agents.reader import Reader
from compose.connections import open_postgres
from compose.local.stack import ROOT
from compose.provisioning import provision_topics
from compose.settings import Settings
from projections.sinks.memory import MemorySink
from projections.views import views
from schemas.envelope import encode
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.servers import Servers
from tests.working import (
    Totals,
    Worker,
    counting,
    produce,
    producing,
    provision_log,
    settled,
    until,
    viewed,
    working,
)

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(200)]


@pytest.fixture
def worker(settings: Settings, servers: Servers, tmp_path: Path) -> Iterator[Worker]:
    asyncio.run(provision_log(settings))
    with working(settings, servers, tmp_path) as (worker,):
        yield worker


async def test_views_sent_again_count_once_in_every_projection(settings: Settings, worker: Worker) -> None:
    once = [viewed(f"view-{i}", f"film-{i % 7}") for i in range(5_000)]
    await produce(settings, once + once[::10] + once[:50])
    expected = Counter(view.video_id for view in once)
    assert await settled(settings, expected) == Totals(expected, expected, expected)


async def test_a_view_is_counted_everywhere_within_a_second(settings: Settings, worker: Worker) -> None:
    await produce(settings, [viewed("first", "film")])
    assert await settled(settings, Counter(film=1)) == Totals(*[{"film": 1}] * 3)
    async with producing(settings) as producer:
        began = time.monotonic()
        await send(producer, settings, "second")
        expected = Counter(film=2)
        assert await settled(settings, expected, seconds=5) == Totals(expected, expected, expected)
        assert time.monotonic() - began < 1


async def test_poison_is_parked_with_its_reason_and_later_events_go_on(settings: Settings, worker: Worker) -> None:
    topic, partitions = settings.named("views"), streams().topics["views"].partitions
    message = encode(viewed("good", "film"), event_id="good", source="/tests")
    home = partition_of(message.key, partitions)
    poison: list[dict[str, Any]] = [
        {"value": None},
        {"value": b"no json"},
        {"value": b"{}"},
        {"headers": []},
        {"headers": [("content-type", None), ("ce_type", None)]},
        {"headers": [("a\0b", b"\0"), *message.headers], "key": b"another"},
        {"key": b"k" * 500_000},
        {"headers": [("ce_type", b"no\0type") if name == "ce_type" else (name, v) for name, v in message.headers]},
        {"partition": (home + 1) % partitions},
    ]
    async with producing(settings) as producer:
        for change in poison:
            record = {
                "value": message.value,
                "key": message.key,
                "headers": message.headers,
                "partition": home,
            } | change
            await producer.send_and_wait(topic, **record)
        await producer.send_and_wait(topic, message.value, message.key, headers=message.headers)
    assert await settled(settings, Counter(film=1)) == Totals(*[{"film": 1}] * 3)
    async with open_postgres(settings, connections=1) as pool:
        rows = await pool.fetch("select reason, count(*) from parked where projection = 'statistics' group by 1")
    assert dict(map(tuple, rows)) == {
        "undecodable": 4,
        "invalid-event": 1,
        "wrong-key": 2,
        "unknown-type": 1,
        "wrong-partition": 1,
    }


async def test_a_transaction_that_was_aborted_is_passed_and_counts_nothing(settings: Settings, worker: Worker) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=settings.named("aborts"))
    async with producer:
        await producer.begin_transaction()
        await send(producer, settings, "aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await send(producer, settings, "committed")
    assert await settled(settings, Counter(film=1)) == Totals(*[{"film": 1}] * 3)
    await until(lambda: caught_up(settings))


async def test_a_worker_told_to_stop_stops_in_seconds(settings: Settings, worker: Worker) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(2_000)])
    async with counting(settings) as totals:
        await until(lambda: totals(["film"]))
    assert worker.stop() == 0


async def test_a_reader_told_to_stop_ends_without_being_cancelled(settings: Settings) -> None:
    """A cancellation may be lost in a client that is closing just then."""
    await provision_log(settings)
    partitions = {name: topic.partitions for name, topic in streams().topics.items()}
    reader = Reader(settings, views, MemorySink(views), partitions, fold=never, deliver=never)
    running = asyncio.create_task(reader.run())
    reader.stop()
    await asyncio.wait_for(running, 30)


async def never(batch: Batch) -> None:
    raise AssertionError(f"nothing was produced, and there is {batch}")


async def test_a_topic_created_anew_is_refused_with_the_way_out(settings: Settings, worker: Worker) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(100)])
    await settled(settings, Counter(film=100))
    worker.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_topics([settings.named("views")])
    await until(lambda: is_gone(admin, settings.named("views")))
    await admin.close()
    await provision_topics(settings, {"views": streams().topics["views"]})
    await produce(settings, [viewed(f"other-{i}", "film") for i in range(500)])
    worker.start()

    async def refused() -> bool:
        return all(f"faust -A agents rebuild {name}" in worker.said for name in ("views", "statistics", "leaderboard"))

    await until(refused)
    async with counting(settings) as totals:
        assert await totals(["film"]) == Totals(*[{"film": 100}] * 3)


async def test_a_worker_that_starts_before_its_servers_waits_for_them(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    with working(settings, servers, tmp_path) as (worker,):

        async def waits() -> bool:
            return "waiting" in worker.said

        await until(waits)
        await provision_log(settings)
        await produce(settings, [viewed("view", "film")])
        assert await settled(settings, Counter(film=1)) == Totals(*[{"film": 1}] * 3)


async def send(producer: AIOKafkaProducer, settings: Settings, view_id: str) -> None:
    message = encode(viewed(view_id, "film"), event_id=view_id, source="/tests")
    await producer.send_and_wait(settings.named(message.topic), message.value, message.key, headers=message.headers)


async def caught_up(settings: Settings) -> bool:
    command = [sys.executable, "-m", "faust", "-A", "agents", "lag", "--json"]
    environment = {"ET_PREFIX": settings.prefix}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=True
    )
    return not sum(row["lag_events"] for row in json.loads(done.stdout))


async def is_gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return topic not in await admin.list_topics()
