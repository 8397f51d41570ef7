"""The stores that hold what is folded, and where in them each version of a projection lies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis

from agents.handover import Partition
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.settings import Settings
from projections.all import PROJECTIONS
from projections.projection import Projection
from projections.queries.checkpoints import Checkpoints, checkpoints_of
from projections.queries.versions import Version
from projections.rule import Rule
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.memory import MemorySink
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.sink import Sink
from schemas.streams import streams


class Stores(NamedTuple):
    """The open clients, and what lies behind them."""

    prefix: str
    pool: Any
    redis: Redis
    elasticsearch: AsyncElasticsearch

    def sink(self, version: Version) -> Sink:
        """The sink of one version of a projection."""
        projection = folded_as(version)
        match streams().projections[version.projection].sink:
            case "postgres":
                return PostgresSink(self.pool, projection)
            case "redis":
                return RedisSink(self.redis, projection, self.prefix, shards=version.shards)
            case "elasticsearch":
                return ElasticsearchSink(self.elasticsearch, projection, self.prefix)
            case "memory":
                return MemorySink(projection)

    def checkpoints(self, version: Version) -> Checkpoints:
        """How far that version is."""
        return checkpoints_of(version, self.prefix, self.pool, self.redis, self.elasticsearch)


def folded_as(version: Version) -> Projection:
    """The fold that makes this version, by its rule, if its number is that of this release."""
    rule = None if version.rule is None else Rule.model_validate(version.rule)
    return PROJECTIONS[version.projection].at(version.number, rule)


def partitions_of(projection: str) -> list[Partition]:
    """Everything that the projection folds, the decisions about what it parked among it."""
    topics = streams().projections[projection].reads
    return [Partition(topic, number) for topic in topics for number in range(streams().topics[topic].partitions)]


@asynccontextmanager
async def open_stores(settings: Settings, *, connections: int = 8) -> AsyncIterator[Stores]:
    """Opening connects to nothing. `connections` are those to Postgres."""
    async with (
        open_postgres(settings, connections=connections) as pool,
        open_redis(settings) as redis,
        open_elasticsearch(settings) as elasticsearch,
    ):
        yield Stores(settings.prefix, pool, redis, elasticsearch)
