"""How far a projection in Redis is, for those who wait for their own event."""

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

    async def next_offset(self, topic: str, partition: int) -> int:
        """The first offset that is not folded yet; 0 before a worker has begun. Raises StoreUnavailable."""
        with reaching_redis():
            found: list[Any] = [
                await self._redis.hget(keys.checkpoints, f"{topic}/{partition}") for keys in self._shards
            ]
        # A batch on its way reads as `100>5100 3`.
        return min(int(value.partition(b">")[0]) if value else 0 for value in found)
