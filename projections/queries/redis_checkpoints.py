"""How far a projection in Redis is, for those who wait for their own event."""

from collections.abc import Iterable, Mapping
from typing import Any

from redis.asyncio import Redis

from projections.sinks.redis_keys import channel, shards_of
from projections.sinks.redis_scripts import reaching_redis


class RedisCheckpoints:
    """The checkpoints of one version of a projection. Each move is also told on `channel` (`projections.sinks.redis_keys`)."""

    def __init__(self, redis: Redis, prefix: str, projection: str, *, version: int, shards: int = 1) -> None:
        self._redis = redis
        self._shards = shards_of(prefix, projection, version, shards)
        self.channel = channel(prefix)

    async def next_offsets(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """The first offset that is not folded yet of each (topic, partition); 0 before a worker has begun. Raises StoreUnavailable."""
        wanted = list(partitions)
        fields = [f"{topic}/{partition}" for topic, partition in wanted]
        with reaching_redis():
            found: list[list[Any]] = [await self._redis.hmget(keys.checkpoints, fields) for keys in self._shards]
        # A batch on its way reads as `100>5100 3`.
        shards = [[int(value.partition(b">")[0]) if value else 0 for value in values] for values in found]
        return {partition: min(offsets) for partition, *offsets in zip(wanted, *shards, strict=True)}
