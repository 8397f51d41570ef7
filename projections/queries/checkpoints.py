"""How far each projection is, for those who wait for their own event and those who watch the lag."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis

from projections.queries.redis_checkpoints import RedisCheckpoints
from projections.queries.versions import Version
from projections.sinks.elasticsearch import index_name, reaching_elasticsearch
from projections.sinks.postgres import reaching_postgres
from projections.sinks.sink import StoreUnavailable
from schemas.streams import streams


class Checkpoints(Protocol):
    """The checkpoints of one version of a projection."""

    async def next_offsets(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """The first offset that is not folded yet of each (topic, partition), asked at once; 0 before a worker has begun.

        Raises StoreUnavailable.
        """


class PostgresCheckpoints:
    """In the table that the sinks share. Each move is also told by NOTIFY on `current_schema() || '_checkpoints'`."""

    def __init__(self, pool: Any, projection: str, *, version: int) -> None:
        self._pool = pool
        self._projection = projection
        self._version = version

    async def next_offsets(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        with reaching_postgres():
            rows = await self._pool.fetch(
                "select topic, partition, next_offset from checkpoints where projection = $1 and version = $2",
                self._projection,
                self._version,
            )
        found = {(topic, partition): next_offset for topic, partition, next_offset in rows}
        return {partition: found.get(partition, 0) for partition in partitions}


class ElasticsearchCheckpoints:
    """In an index beside the documents, read in real time."""

    def __init__(self, client: AsyncElasticsearch, prefix: str, projection: str, *, version: int) -> None:
        self._client = client
        self._index = f"{index_name(prefix, projection, version)}.checkpoints"

    async def next_offsets(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        wanted = list(partitions)
        ids = [f"{topic}.{partition}" for topic, partition in wanted]
        with reaching_elasticsearch():
            found = await self._client.mget(index=self._index, ids=ids)
        offsets = {}
        for partition, document in zip(wanted, found["docs"], strict=True):
            error = document.get("error", {}).get("type", "index_not_found_exception")
            if error != "index_not_found_exception":
                raise StoreUnavailable("elasticsearch", f"{self._index}: {error}")
            offsets[partition] = document.get("_source", {}).get("next_offset", 0)
        return offsets


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
