"""How far each projection is, for those who wait for their own event and those who watch the lag."""

from typing import Any, Protocol

from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis

from projections.queries.redis_checkpoints import RedisCheckpoints
from projections.queries.versions import Version
from projections.sinks.elasticsearch import index_name, reaching_elasticsearch
from projections.sinks.postgres import reaching_postgres
from schemas.streams import streams


class Checkpoints(Protocol):
    """The checkpoints of one version of a projection."""

    async def next_offset(self, topic: str, partition: int) -> int:
        """The first offset that is not folded yet; 0 before a worker has begun. Raises StoreUnavailable."""


class PostgresCheckpoints:
    """In the table that the sinks share. Each move is also told by NOTIFY on `current_schema() || '_checkpoints'`."""

    def __init__(self, pool: Any, projection: str, *, version: int) -> None:
        self._pool = pool
        self._projection = projection
        self._version = version

    async def next_offset(self, topic: str, partition: int) -> int:
        with reaching_postgres():
            found: int | None = await self._pool.fetchval(
                "select next_offset from checkpoints where projection = $1 and version = $2 and topic = $3 and partition = $4",
                self._projection,
                self._version,
                topic,
                partition,
            )
        return found or 0


class ElasticsearchCheckpoints:
    """In an index beside the documents, read in real time."""

    def __init__(self, client: AsyncElasticsearch, prefix: str, projection: str, *, version: int) -> None:
        self._client = client
        self._index = f"{index_name(prefix, projection, version)}.checkpoints"

    async def next_offset(self, topic: str, partition: int) -> int:
        with reaching_elasticsearch():
            found = await self._client.options(ignore_status=404).get(index=self._index, id=f"{topic}.{partition}")
        next_offset: int = found.get("_source", {}).get("next_offset", 0)
        return next_offset


def checkpoints_of(
    version: Version, prefix: str, pool: Any, redis: Redis, elasticsearch: AsyncElasticsearch
) -> Checkpoints:
    """The checkpoints of this version of a projection, wherever its sink keeps them."""
    name, sink = version.projection, streams().projections[version.projection].sink
    if sink == "redis":
        return RedisCheckpoints(redis, prefix, name, version=version.number, shards=version.shards)
    if sink == "elasticsearch":
        return ElasticsearchCheckpoints(elasticsearch, prefix, name, version=version.number)
    return PostgresCheckpoints(pool, name, version=version.number)
