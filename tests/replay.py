"""Folding a log in memory into the real stores, another way each time: in other batches, interleaved otherwise, by other clocks."""

import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from agents.decisions import DecisionsOfWorker
from agents.folding import Folding
from agents.handover import Batch, Partition
from agents.parking import Parking
from agents.seen import SeenIdsOfWorker
from agents.stores import folded_as
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.settings import Settings
from projections.queries.contents import contents_of, written
from projections.queries.versions import Version, declared
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.redis_layout import Limits
from projections.sinks.sink import LogIdentity, Sink
from schemas.streams import streams
from tests.logs import AS_OF, EVENING, FIRST, PartitionInMemory

Log = Mapping[Partition, PartitionInMemory]


class Way(NamedTuple):
    """One way to fold a log: how many records a batch holds, how often all is lost but what the stores hold, and where the clocks are."""

    seed: int
    largest_batch: int
    crashes: float
    limits: Limits
    zone: str


PLAIN = Way(0, 100_000, 0.0, Limits(), "UTC")


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

    def sink(self, version: Version, limits: Limits) -> Sink:
        projection, prefix = folded_as(version), self.settings.prefix
        match streams().projections[version.projection].sink:
            case "redis":
                return RedisSink(self.redis, projection, prefix, shards=version.shards, limits=limits)
            case "elasticsearch":
                return ElasticsearchSink(self.elasticsearch, projection, prefix)
            case _:
                return PostgresSink(self.pool, projection)

    async def drop(self, versions: Sequence[Version]) -> None:
        """Everything of these, and whatever is parked."""
        for version in versions:
            await self.sink(version, Limits()).drop()
        await self.pool.execute("delete from parked")

    async def dump(self, version: Version) -> bytes:
        """One version's state, and what was parked of it."""
        rows = contents_of(version, self.settings.prefix, self.pool, self.redis, self.elasticsearch)
        parked = await self.pool.fetch(
            """
            select topic, partition, log_offset, reason, key, sha256(value) from parked
            where projection = $1 and version = $2 order by 1, 2, 3
            """,
            version.projection,
            version.number,
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


def all_declared() -> list[Version]:
    """What a system without a history folds."""
    return [declared(name) for name in streams().projections]


class Replay:
    """Workers that fold a log into these versions, one after the other: each knows only what the stores hold.

    They end where `ends` says, else at the log's end, and at `as_of` by the clock.
    """

    def __init__(
        self,
        stores: Stores,
        log: Log,
        way: Way,
        versions: Sequence[Version],
        *,
        ends: Mapping[Partition, int] | None = None,
        as_of: datetime = AS_OF,
    ) -> None:
        self._stores, self._log, self._way, self._ends, self._as_of = stores, log, way, ends, as_of
        self._versions = {version.full_name: version for version in versions}
        self._chance = random.Random(way.seed)
        self._now = FIRST if way.seed else as_of
        self._start()

    def _start(self) -> None:
        partitions = {name: topic.partitions for name, topic in streams().topics.items()}
        within = {name: topic.once_within for name, topic in streams().topics.items() if topic.once_within}

        def open_log(partition: Partition) -> Any:
            return self._log[partition].open(partition)

        seen, decisions = SeenIdsOfWorker(within, partitions, open_log), DecisionsOfWorker(open_log, partitions)
        self._sinks = {name: self._stores.sink(version, self._way.limits) for name, version in self._versions.items()}
        self._foldings = {}
        for name, version in self._versions.items():
            projection = folded_as(version)
            parking = Parking(self._stores.pool, projection)
            self._foldings[name] = Folding(projection, self._sinks[name], parking, seen, partitions, decisions)

    async def fold(self) -> None:
        for sink in self._sinks.values():
            await sink.prepare()
        await self._tick(self._now)
        left = [
            (name, at)
            for name, version in self._versions.items()
            for at in self._log
            if at.topic in folded_as(version).topics
        ]
        while left:
            turn = self._chance.choice(left)
            if await self._is_folded_further(*turn):
                left.remove(turn)
            if self._chance.random() < self._way.crashes:
                self._start()
            if self._chance.random() < 0.05:
                # Its clock may be slow, and may go back.
                self._now = min(self._as_of, EVENING, self._now + timedelta(hours=self._chance.uniform(-1, 12)))
                await self._tick(self._now)
        await self._tick(self._as_of)

    async def _tick(self, now: datetime) -> None:
        for sink in self._sinks.values():
            await sink.tick(now)

    async def _is_folded_further(self, name: str, at: Partition) -> bool:
        """Fold one batch; True when that was the last."""
        log, sink = self._log[at], self._sinks[name]
        start = (await sink.checkpoint(*at, LogIdentity("cluster", at.topic, 12))).next_offset
        end = self._ends[at] if self._ends is not None else await log.end() + 1  # a transaction's marker
        if start == end:
            return True
        following = min(end, start + self._chance.randint(1, self._way.largest_batch))
        records = [record for record in log.records if start <= record.offset < following]
        await self._foldings[name].fold(Batch(1, at, start, following, records))
        return following == end
