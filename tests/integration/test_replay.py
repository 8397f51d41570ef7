"""All projections dropped and folded again are what they were, byte for byte, however the log is cut, interleaved and timed."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer

from agents.folding import Folding
from agents.handover import Batch, Partition
from agents.lag import lags
from agents.parking import Parking
from agents.seen import SeenIdsOfWorker
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.all import PROJECTIONS
from projections.queries.contents import contents_of, written
from projections.queries.versions import declared
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.redis_layout import Limits
from projections.sinks.sink import LogIdentity, Sink, StoreUnavailable
from schemas.streams import streams
from tests.logs import AS_OF, EVENING, FIRST, PartitionInMemory, log_of_everything
from tests.parking_lot import NoDecisions
from tests.servers import Servers
from tests.working import provision_log, until, working

pytestmark = pytest.mark.usefixtures("postgres", "redis", "elasticsearch")

RECORDS = 500
SEEDS = range(2)
STARTED_AND_FOLDED_SECONDS = 150  # by a worker process, on a machine that is busy
Log = Mapping[Partition, PartitionInMemory]


class Way(NamedTuple):
    """One way to fold a log: how many records a batch holds, how often all is lost but what the stores hold, and where the clocks are."""

    seed: int
    largest_batch: int
    crashes: float
    limits: Limits
    zone: str


PLAIN = Way(0, 100_000, 0.0, Limits(), "UTC")
WAYS = [
    Way(1, 7, 0.0, Limits(rows=5, leaving=2, worth_packing=1), "Asia/Kathmandu"),
    Way(2, 40, 0.2, Limits(rows=3, leaving=3, worth_packing=2), "America/St_Johns"),
]


@contextmanager
def zone(name: str) -> Iterator[None]:
    """This process lives there."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


class Stores:
    """The three of them, with what a worker makes over them."""

    def __init__(self, settings: Settings, pool: Any, redis: Any, elasticsearch: Any) -> None:
        self.settings, self.pool, self.redis, self.elasticsearch = settings, pool, redis, elasticsearch

    def sinks(self, limits: Limits) -> dict[str, Sink]:
        found: dict[str, Sink] = {}
        for name, spec in streams().projections.items():
            match spec.sink:
                case "redis":
                    found[name] = RedisSink(
                        self.redis, PROJECTIONS[name], self.settings.prefix, shards=spec.shards, limits=limits
                    )
                case "elasticsearch":
                    found[name] = ElasticsearchSink(self.elasticsearch, PROJECTIONS[name], self.settings.prefix)
                case _:
                    found[name] = PostgresSink(self.pool, PROJECTIONS[name])
        return found

    async def drop_everything(self) -> None:
        for sink in self.sinks(Limits()).values():
            await sink.drop()
        await self.pool.execute("delete from parked")

    async def dump(self, name: str) -> bytes:
        """One projection's state, and what was parked of it."""
        rows = contents_of(declared(name), self.settings.prefix, self.pool, self.redis, self.elasticsearch)
        parked = await self.pool.fetch(
            "select topic, partition, log_offset, reason, key, sha256(value) from parked where projection = $1 order by 1, 2, 3",
            name,
        )
        return b"\n".join([written(row) async for row in rows] + [repr(tuple(row)).encode() for row in parked])


@asynccontextmanager
async def open_stores(settings: Settings, zone: str) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(open_postgres(settings))
        there = {"search_path": settings.postgres_schema, "timezone": zone}
        pool.set_connect_args(settings.postgres_dsn.get_secret_value(), server_settings=there)
        redis = await opened.enter_async_context(open_redis(settings))
        yield Stores(settings, pool, redis, await opened.enter_async_context(open_elasticsearch(settings)))


class Replay:
    """Workers that fold the whole log, one after the other: each knows only what the stores hold."""

    def __init__(self, stores: Stores, log: Log, way: Way) -> None:
        self._stores, self._log, self._way = stores, log, way
        self._chance = random.Random(way.seed)
        self._now = FIRST if way.seed else AS_OF
        self._start()

    def _start(self) -> None:
        partitions = {name: topic.partitions for name, topic in streams().topics.items()}
        within = {name: topic.once_within for name, topic in streams().topics.items() if topic.once_within}
        seen = SeenIdsOfWorker(within, partitions, lambda partition: self._log[partition].open(partition))  # type: ignore[arg-type, return-value]
        self._sinks = self._stores.sinks(self._way.limits)
        self._foldings = {
            name: Folding(
                PROJECTIONS[name], sink, Parking(self._stores.pool, PROJECTIONS[name]), seen, partitions, NoDecisions()
            )
            for name, sink in self._sinks.items()
        }

    async def fold(self) -> None:
        for sink in self._sinks.values():
            await sink.prepare()
        await self._tick(self._now)
        left = [(name, at) for name in self._sinks for at in self._log if at.topic in PROJECTIONS[name].topics]
        while left:
            turn = self._chance.choice(left)
            if await self._is_folded_further(*turn):
                left.remove(turn)
            if self._chance.random() < self._way.crashes:
                self._start()
            if self._chance.random() < 0.05:
                # Its clock may be slow, and may go back.
                self._now = min(EVENING, self._now + timedelta(hours=self._chance.uniform(-1, 12)))
                await self._tick(self._now)
        await self._tick(AS_OF)

    async def _tick(self, now: Any) -> None:
        for sink in self._sinks.values():
            await sink.tick(now)

    async def _is_folded_further(self, name: str, at: Partition) -> bool:
        """Fold one batch; True when that was the last."""
        log, sink = self._log[at], self._sinks[name]
        start = (await sink.checkpoint(*at, LogIdentity("cluster", at.topic, 12))).next_offset
        end = await log.end() + 1  # a transaction's marker
        following = min(end, start + self._chance.randint(1, self._way.largest_batch))
        records = [record for record in log.records if start <= record.offset < following]
        await self._foldings[name].fold(Batch(1, at, start, following, records))
        return following == end


async def dumps(settings: Settings, log: Log, way: Way) -> dict[str, bytes]:
    """What each projection is, folded that way from nothing."""
    with zone(way.zone):
        async with open_stores(settings, way.zone) as stores:
            await stores.drop_everything()
            await Replay(stores, log, way).fold()
            return {name: await stores.dump(name) for name in streams().projections}


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
                await stores.drop_everything()
            with zone(place):
                await folded_by_a_worker(settings, servers, stores, tmp_path)
            for sink in stores.sinks(Limits()).values():
                await sink.tick(now + timedelta(hours=1))
            found.append({name: (await stores.dump(name)).decode() for name in streams().projections})
    assert min(map(len, found[0].values())) > 1_000
    assert found[0] == found[1]


async def test_a_version_that_nobody_has_made_has_no_contents(settings: Settings) -> None:
    await provision_tables(settings)
    async with open_stores(settings, "UTC") as stores:
        for name in streams().projections:
            with pytest.raises(StoreUnavailable):
                await stores.dump(name)
