"""The lag on real servers: in events and in seconds, of every version that is folded."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer

from agents.handover import Partition, Progress
from agents.lag import Lag, lags
from agents.log_reader import log_of
from agents.registry import register_declared
from agents.seen import SeenIdsOfWorker
from agents.standing import Judged, Standing
from agents.watchdog import Watchdog
from agents.watching import Watching
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.settings import Settings
from projections.sinks.postgres import PostgresSink
from projections.sinks.sink import LogIdentity
from projections.views import views
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.working import produce, provision_log, until, viewed

pytestmark = pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch")

PARTITION = partition_of(b"view", streams().topics["views"].partitions)


async def lags_of(settings: Settings, projection: str) -> Sequence[Lag]:
    async with (
        open_postgres(settings) as pool,
        open_redis(settings) as redis,
        open_elasticsearch(settings) as client,
    ):
        found = await lags(settings, streams(), pool, redis, client)
    return [lag for lag in found if lag.projection == projection and lag.topic == "views"]


async def fold_to(settings: Settings, next_offset: int, *, version: int = views.version) -> None:
    async with open_postgres(settings) as pool:
        sink = PostgresSink(pool, views.at(version))
        await sink.prepare()
        place = (await sink.checkpoint("views", PARTITION, LogIdentity("a", "b", 12))).place
        await sink.apply([], expected=place, next_offset=next_offset)


async def test_the_oldest_record_that_is_not_folded_tells_the_seconds(settings: Settings) -> None:
    await provision_log(settings)
    await produce(settings, [viewed("view", "film")])
    await produce(settings, [viewed("view", "film")])
    between = datetime.now(UTC)
    await asyncio.sleep(0.3)
    await produce(settings, [viewed("view", "film")])

    async def behind() -> tuple[int, float]:
        (found,) = [lag for lag in await lags_of(settings, "views") if lag.lag_events]
        assert found.partition == PARTITION
        assert found.lag_seconds is not None
        return found.lag_events, found.lag_seconds

    events, seconds = await behind()
    assert events == 3
    assert seconds > 0.3
    await fold_to(settings, 2)
    events, seconds = await behind()
    assert events == 1
    assert seconds < (datetime.now(UTC) - between).total_seconds() - 0.3
    await fold_to(settings, 3)
    assert [lag.lag_seconds for lag in await lags_of(settings, "views")] == [0.0] * 12


async def test_each_version_that_is_folded_has_its_own_lag(settings: Settings) -> None:
    await provision_log(settings)
    await produce(settings, [viewed("view", "film")])
    async with open_postgres(settings) as pool:
        insert = "insert into versions (projection, version, fold, shards, state) values ('views', $1, 1, 1, $2)"
        for version, state in ((1, "retired"), (2, "active"), (3, "building")):
            await pool.execute(insert, version, state)
    await fold_to(settings, 1, version=2)
    behind = {lag.version: lag.lag_events for lag in await lags_of(settings, "views") if lag.partition == PARTITION}
    assert behind == {2: 0, 3: 1}


async def test_nobody_is_woken_while_no_broker_answers_although_all_stand_still(settings: Settings) -> None:
    await provision_log(settings)
    standing = Standing("views", 1, Partition("views", 3), Progress(41, None, "records"), None, None)
    away = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:9"})
    told: list[object] = []

    async def act(silent: list[Judged]) -> None:
        told.append(silent)

    async with open_postgres(settings) as pool:
        seen = SeenIdsOfWorker({}, {}, log_of(settings))
        watching = Watching(away, pool, seen, lambda: [standing], Watchdog(stuck_seconds=0))
        watching._ends[standing.partition] = 1_000
        running = asyncio.create_task(watching.run(act))

        async def is_judged() -> bool:
            return bool(watching.judged)

        await until(is_judged)
        running.cancel()
        await asyncio.wait([running])
    assert watching.judged[0].state == "stuck"
    assert told == []


async def test_what_nobody_reads_is_told_with_who_takes_it_away_and_with_the_way_out(settings: Settings) -> None:
    assert views.version > 1
    await provision_log(settings)
    await produce(settings, [viewed("view", "film")])
    async with open_postgres(settings) as pool:
        await register_declared(pool, streams())
        insert = "insert into versions (projection, version, fold, shards, state) values ('views', 99, 1, 1, 'ready')"
        await pool.execute(insert)
    group = settings.named(views.full_name)
    stranger = AIOKafkaConsumer(
        settings.named("views"), bootstrap_servers=settings.kafka_bootstrap, group_id=group, client_id="reports"
    )

    async def told() -> dict[int, str]:
        return {lag.version: lag.why for lag in await lags_of(settings, "views") if lag.why}

    await stranger.start()
    found = await until(told)
    await stranger.stop()
    assert "`faust -A agents retire views --version 99` drops it" in found[99]
    assert f"'reports' at 127.0.0.1 is in the consumer group {group}" in found[views.version]
    assert (await told())[views.version] == f"{views.full_name} is behind, and no worker reads it: start one"
