"""All projections dropped and folded again are what they were, byte for byte, however the log is cut, interleaved and timed."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from agents.lag import lags
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.sinks.redis_layout import Limits
from projections.sinks.sink import StoreUnavailable
from schemas.streams import streams
from tests.logs import log_of_everything
from tests.replay import PLAIN, Log, Replay, Stores, Way, all_declared, open_stores, zone
from tests.servers import Servers
from tests.working import provision_log, until, working

pytestmark = pytest.mark.usefixtures("postgres", "redis", "elasticsearch")

RECORDS = 500
SEEDS = range(2)
STARTED_AND_FOLDED_SECONDS = 150  # by a worker process, on a machine that is busy

WAYS = [
    Way(1, 7, 0.0, Limits(rows=5, leaving=2, worth_packing=1), "Asia/Kathmandu"),
    Way(2, 40, 0.2, Limits(rows=3, leaving=3, worth_packing=2), "America/St_Johns"),
]


async def dumps(settings: Settings, log: Log, way: Way) -> dict[str, bytes]:
    """What each projection is, folded that way from nothing."""
    with zone(way.zone):
        async with open_stores(settings, way.zone) as stores:
            await stores.drop(all_declared())
            await Replay(stores, log, way, all_declared()).fold()
            return {version.projection: await stores.dump(version) for version in all_declared()}


@pytest.mark.parametrize("seed", SEEDS)
async def test_everything_dropped_and_folded_another_way_is_the_same_byte_for_byte(
    settings: Settings, seed: int
) -> None:
    await provision_tables(settings)
    log = log_of_everything(seed, RECORDS)
    plain = await dumps(settings, log, PLAIN)
    assert min(map(len, plain.values())) > 1_000
    for way in WAYS:
        again = await dumps(settings, log, way)
        assert {name: again[name].decode() for name in plain} == {name: plain[name].decode() for name in plain}


async def produced(settings: Settings, log: Log) -> None:
    """The log as it is, and behind each of its topics some records that were taken back."""
    aborting = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=settings.named("aborts"), linger_ms=5
    )
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, linger_ms=5) as producer, aborting:
        sent = [
            await producer.send(
                settings.named(at.topic), record.value, record.key, partition=at.number, headers=record.headers
            )
            for at, partition in log.items()
            for record in partition.records
        ]
        await asyncio.gather(*sent)
        await aborting.begin_transaction()
        for at in log:
            await aborting.send(settings.named(at.topic), b"taken back", b"key", partition=at.number)
        await aborting.abort_transaction()


async def folded_by_a_worker(settings: Settings, servers: Servers, stores: Stores, log: Path) -> None:
    """A process folds all that there is, then ends; the boards stand at the same moment whenever it was."""

    async def is_caught_up() -> bool:
        with suppress(StoreUnavailable):
            found = await lags(settings, streams(), stores.pool, stores.redis, stores.elasticsearch)
            return not any(lag.lag_events for lag in found)
        return False

    with working(settings, servers, log) as (worker,):
        await until(is_caught_up, seconds=STARTED_AND_FOLDED_SECONDS)
        worker.stop()


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("kafka")
async def test_what_a_worker_made_of_a_log_another_makes_of_it_in_another_time_zone(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    now = datetime.now(UTC)
    found = []
    async with open_stores(settings, "UTC") as stores:
        await produced(settings, log_of_everything(7, RECORDS, until=now))
        for number, place in enumerate(("UTC", "Asia/Kathmandu")):
            if number:
                await stores.drop(all_declared())
            with zone(place):
                await folded_by_a_worker(settings, servers, stores, tmp_path)
            for version in all_declared():
                await stores.sink(version, Limits()).tick(now + timedelta(hours=1))
            found.append({version.projection: (await stores.dump(version)).decode() for version in all_declared()})
    assert min(map(len, found[0].values())) > 1_000
    assert found[0] == found[1]


async def test_a_version_that_nobody_has_made_has_no_contents(settings: Settings) -> None:
    await provision_tables(settings)
    async with open_stores(settings, "UTC") as stores:
        for version in all_declared():
            with pytest.raises(StoreUnavailable):
                await stores.dump(version)
