"""The worker on real servers: what is in the log is folded, once, whatever else lies beside it."""

import asyncio
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from agents import pacing
from agents.handover import Batch, Partition
from agents.log_reader import log_of
from agents.pacing import QUIET_WAIT_MS
from agents.reader import Reader
from agents.watchdog import Watchdog, silent
from compose.connections import open_redis
from compose.local.stack import ROOT
from compose.provisioning import provision_topics
from compose.settings import Settings
from projections.queries.versions import Versions
from projections.sinks.memory import MemorySink
from projections.sinks.redis_keys import waits
from projections.views import views
from schemas.envelope import encode
from schemas.log import Place
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.servers import Servers, free_port
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


# Once a view and the same view again were folded.
SERIES = (
    'entertainmenttime_reader_partitions{projection="views",state="healthy",version="',
    'entertainmenttime_views_refused_total{projection="statistics",verdict="duplicate"} 1.0',
    'entertainmenttime_events_folded_total{projection="statistics",topic="views"} 1.0',
)
# What aiokafka says when it asks for a partition's records.
FETCH_OF_ONE = "Adding fetch request for partition TopicPartition(topic='%s', partition=3)"


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
    """The fastest of ten: a machine that has other things to do makes one slow, and nothing makes one fast."""
    await produce(settings, [viewed("first", "film")])
    assert await settled(settings, Counter(film=1)) == Totals(*[{"film": 1}] * 3)
    taken_seconds: list[float] = []
    async with producing(settings) as producer, counting(settings) as totals:
        for number in range(2, 12):
            began, expected = time.monotonic(), Totals(*[{"film": number}] * 3)
            await send(producer, settings, f"view-{number}")
            await until(lambda expected=expected: is_now(totals(["film"]), expected))  # type: ignore[misc]
            taken_seconds.append(time.monotonic() - began)
    assert min(taken_seconds) < 1


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


async def test_a_reader_for_whom_nothing_comes_asks_the_broker_seldom(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await provision_log(settings)
    partitions = {name: topic.partitions for name, topic in streams().topics.items()}
    reader = Reader(settings, views, MemorySink(views), partitions, fold=never, deliver=never)
    caplog.set_level(logging.DEBUG, "aiokafka.consumer.fetcher")
    running = asyncio.create_task(reader.run())

    async def asks_seldom() -> bool:
        asked = [
            record.created
            for record in caplog.records
            if record.getMessage().startswith(FETCH_OF_ONE % settings.named("views"))
        ]
        pauses = [later - earlier for earlier, later in itertools.pairwise(asked[-6:])]
        return len(pauses) == 5 and min(pauses) > 0.8 * QUIET_WAIT_MS / 1_000

    await until(asks_seldom)
    reader.stop()
    await asyncio.wait_for(running, 30)


async def never(batch: Batch) -> None:
    raise AssertionError(f"nothing was produced, and there is {batch}")


async def test_a_topic_created_anew_is_refused_with_the_way_out(settings: Settings, worker: Worker) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(100)])
    await settled(settings, Counter(film=100))
    worker.stop()
    await delete_topic(settings, "views")
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


async def is_now(found: Awaitable[Totals | None], expected: Totals) -> bool:
    return await found == expected


async def send(producer: AIOKafkaProducer, settings: Settings, view_id: str) -> None:
    message = encode(viewed(view_id, "film"), event_id=view_id, source="/tests")
    await producer.send_and_wait(settings.named(message.topic), message.value, message.key, headers=message.headers)


async def delete_topic(settings: Settings, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_topics([settings.named(topic)])
    await until(lambda: is_gone(admin, settings.named(topic)))
    await admin.close()


async def caught_up(settings: Settings) -> bool:
    return not sum(row["lag_events"] for row in await lag(settings))


async def lag(settings: Settings) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "faust", "-A", "agents", "lag", "--json"]
    environment = {"ET_PREFIX": settings.prefix}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


async def is_gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return topic not in await admin.list_topics()


async def test_a_reader_whose_fold_never_returns_is_given_up_and_the_next_one_folds(settings: Settings) -> None:
    await provision_log(settings)
    await produce(settings, [viewed("view", "film")])
    partitions = {name: topic.partitions for name, topic in streams().topics.items()}
    sink, folded, agents = MemorySink(views), asyncio.Event(), set()

    async def hang(batch: Batch) -> None:
        await asyncio.Event().wait()

    async def fold(batch: Batch) -> None:
        folded.set()

    def reader_of(fold_it: Any) -> Reader:
        async def deliver(batch: Batch) -> None:
            agents.add(asyncio.create_task(reader.process(batch)))

        reader = Reader(settings, views, sink, partitions, fold=fold_it, deliver=deliver)
        return reader

    stuck, watchdog = reader_of(hang), Watchdog(stuck_seconds=1)
    running = asyncio.create_task(stuck.run())

    async def are_silent() -> bool:
        judged = [watchdog.judge(standing, 1, None) for standing in stuck.standings() if standing.progress.appended_ms]
        return bool(silent(judged))

    await until(are_silent)
    assert "hang" in stuck.whereabouts()
    stuck.stop()
    running.cancel()
    await asyncio.wait([running, *agents], timeout=20)
    assert [task.exception() for task in agents] == [None], "the agent lives on"
    running = asyncio.create_task(reader_of(fold).run())
    await asyncio.wait_for(folded.wait(), 30)
    running.cancel()
    await asyncio.wait([running], timeout=20)


async def test_a_reader_that_rests_reads_what_somebody_waits_for_and_nothing_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in ("BUSY_SECONDS", "REST_SECONDS"):
        monkeypatch.setattr(pacing, seconds, 10_000.0)  # it is always busy, and rests for ever
    await provision_log(settings)
    partitions = {name: topic.partitions for name, topic in streams().topics.items()}
    folded: asyncio.Queue[Batch] = asyncio.Queue()

    async def deliver(batch: Batch) -> None:
        agents.append(asyncio.create_task(reader.process(batch)))

    async def key() -> bytes | None:
        """Of the one record that was folded next."""
        [record] = (await asyncio.wait_for(folded.get(), 30)).records
        return record.key

    async def written(name: bytes) -> Place:
        """Where the view lies. Whoever comes now has read it by the time that it is looked whether the reader has."""
        at = Partition("views", partition_of(name, partitions["views"]))
        async with log_of(settings)(at) as log:
            found = [record async for records in log.read(0, await log.end()) for record in records]
        return next(Place(*at, record.offset) for record in found if record.key == name)

    agents: list[asyncio.Task[None]] = []
    reader = Reader(settings, views, MemorySink(views), partitions, fold=folded.put, deliver=deliver)
    running = asyncio.create_task(reader.run())
    try:
        await produce(settings, [viewed("first", "film")])
        assert await key() == b"first"
        await produce(settings, [viewed("second", "film"), viewed("third", "film"), viewed("fourth", "film")])
        second, third, fourth = [await written(name) for name in (b"second", b"third", b"fourth")]
        assert len({place.partition for place in (second, third, fourth)}) == 3
        assert folded.empty()
        reader.hurry([second])
        assert await key() == b"second"
        # What nobody has written yet, and what is read already, are not waited for.
        reader.hurry([Place("views", third.partition, 1_000), second])
        assert await key() == b"third"
        reader.hurry([second, fourth])
        assert await key() == b"fourth"
    finally:
        running.cancel()
        await asyncio.wait([running, *agents], timeout=20)


async def test_a_partition_that_is_waited_for_all_the_time_keeps_no_other_from_being_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "BUSY_SECONDS", 10_000.0)
    monkeypatch.setattr(pacing, "REST_SECONDS", 1.0)
    await provision_log(settings)
    partitions = {name: topic.partitions for name, topic in streams().topics.items()}
    waited_for, other = (Partition("views", partition_of(name, partitions["views"])) for name in (b"second", b"third"))
    folded: Counter[Partition] = Counter()

    async def fold(batch: Batch) -> None:
        if batch.partition == waited_for:
            # A slow store: it lets go on only what had to stop, as too much lay before it.
            await until(is_full)
        folded[batch.partition] += 1

    async def is_full() -> bool:
        return waited_for not in reader._handover.reading()

    async def deliver(batch: Batch) -> None:
        agents.append(asyncio.create_task(reader.process(batch)))

    async def wait_all_the_time() -> None:
        async with producing(settings) as producer:
            while True:
                message = encode(viewed("second", "film"), event_id="second", source="/tests")
                sent = await producer.send_and_wait(
                    settings.named("views"), message.value, message.key, headers=message.headers
                )
                reader.hurry([Place(*waited_for, sent.offset)])

    async def is_folded(partition: Partition, times: int) -> bool:
        return folded[partition] >= times

    agents: list[asyncio.Task[None]] = []
    reader = Reader(settings, views, MemorySink(views), partitions, fold=fold, deliver=deliver)
    running = asyncio.create_task(reader.run())
    waiting = asyncio.create_task(wait_all_the_time())
    try:
        await until(lambda: is_folded(waited_for, 3))
        await produce(settings, [viewed("third", "film")])
        await until(lambda: is_folded(other, 1), seconds=20)
    finally:
        for task in (waiting, running):
            task.cancel()
        await asyncio.wait([waiting, running, *agents], timeout=20)


async def test_a_store_that_was_emptied_is_folded_again_though_nothing_more_is_written(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    with working(settings, servers, tmp_path):
        await produce(settings, [viewed(f"view-{number}", "film") for number in range(20)])
        all_there = await settled(settings, Counter(film=20))
        async with open_redis(settings) as redis:
            await redis.delete(*[key async for key in redis.scan_iter(f"{settings.prefix}*")])
        assert all_there == await settled(settings, Counter(film=20)) == Totals(*[Counter(film=20)] * 3)


async def test_a_busy_worker_hurries_for_who_waits(settings: Settings, servers: Servers, tmp_path: Path) -> None:
    await provision_log(settings)
    port = free_port()
    with working(settings, servers, tmp_path, ET_WORKER_METRICS_PORT=str(port)):
        await produce(settings, [viewed("view", "film")])
        await settled(settings, Counter(film=1))
        names = (f"view-{number}" for number in itertools.count())

        async def has_hurried() -> bool:
            # A few, one by one, so that it is busy; and somebody who waits for each.
            everything = [Place("views", number, 10**6) for number in range(streams().topics["views"].partitions)]
            said = [Versions().active("leaderboard").full_name, *(place.id for place in everything)]
            async with open_redis(settings) as redis:
                await redis.publish(waits(settings.prefix), f"{said[0]} what another release says")
                for name in itertools.islice(names, 10):
                    await produce(settings, [viewed(name, "film")])
                    await redis.publish(waits(settings.prefix), " ".join(said))
            text = (await get(port, "/metrics"))[1]
            counted = re.search(r'entertainmenttime_hurried_fetches_total{projection="leaderboard"} (\S+)', text)
            return counted is not None and float(counted[1]) > 0

        await until(has_hurried)


async def test_a_worker_tells_what_it_reads_and_why_it_stands_still(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    port = free_port()
    with working(settings, servers, tmp_path, "mine", ET_WORKER_METRICS_PORT=str(port)) as (worker,):
        await produce(settings, [viewed("view", "film"), viewed("view", "film")])
        await settled(settings, Counter(film=1))

        async def counted() -> bool:
            text = (await get(port, "/metrics"))[1]
            return all(series in text for series in SERIES)

        await until(counted)
        assert (await get(port, "/live"))[0] == 200
        await until(lambda: is_ready(port))
        worker.stop()
        await delete_topic(settings, "views")
        await provision_topics(settings, {"views": streams().topics["views"]})
        worker.start()
        rows = await until(lambda: stuck(settings))
    assert {(row["projection"], row["worker"]) for row in rows} >= {("views", "mine")}
    assert "faust -A agents rebuild views" in "".join(row["why"] for row in rows)


async def test_every_line_of_a_run_is_one_json_object_and_names_the_event_that_it_is_about(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    with working(settings, servers, tmp_path, ET_LOG_FORMAT="json") as (worker,):
        async with producing(settings) as producer:
            message = encode(viewed("good", "film"), event_id="the-event", source="/tests")
            await producer.send_and_wait(
                settings.named("views"), b"no json", message.key, headers=message.headers, partition=3
            )

        async def parked() -> bool:
            return "the-event" in worker.said

        await until(parked)
        assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.said.splitlines()]
    assert {line["service"] for line in lines} == {"worker"}
    assert {line["event_id"] for line in lines if "parked" in line["event"]} == {"the-event"}
    assert {line["reason"] for line in lines if "parked" in line["event"]} == {"undecodable"}


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def is_ready(port: int) -> bool:
    return (await get(port, "/ready")) == (200, '{"status": "ok", "waiting_for": []}')


async def stuck(settings: Settings) -> list[dict[str, Any]]:
    return [row for row in await lag(settings) if row["state"] == "stuck"]
