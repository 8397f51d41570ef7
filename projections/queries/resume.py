"""Where a viewer stopped in a film, read in a fraction of a millisecond."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from projections.queries.versions import Versions
from projections.resume import resume
from projections.sinks.redis_keys import shard_of
from projections.sinks.redis_scripts import reaching_redis
from schemas.log import EPOCH

MICROSECOND = timedelta(microseconds=1)


class Stopped(NamedTuple):
    """Where the session stopped that answers for the viewer."""

    session_id: str
    position_seconds: float
    duration_seconds: float | None
    completed: bool
    updated_at: datetime


class Resume:
    """Reads the positions."""

    source = "redis"

    def __init__(self, redis: Redis, prefix: str, versions: Versions) -> None:
        self._redis = redis
        self._prefix = prefix
        self._versions = versions

    async def position(self, viewer_id: str, video_id: str) -> Stopped | None:
        """None when the viewer never watched the film. Raises StoreUnavailable.

        The session that moved last answers, with its newest position; where none has moved, the one with the newest position; of equals
        the one with the greater id.
        """
        shards = self._versions.active(resume.name).keys(self._prefix)
        keys = shards[shard_of(viewer_id, len(shards))]
        with reaching_redis():
            registers: dict[Any, Any] = await self._redis.hgetall(keys.position(viewer_id, video_id))
        sessions: dict[str, dict[str, tuple[int, bytes]]] = {}
        for field, register in registers.items():
            session_id, _, name = field.decode().rpartition("/")
            moment, _, values = register.partition(b" ")
            sessions.setdefault(session_id, {})[name] = int(moment), values
        if not sessions:
            return None

        def rank(session_id: str) -> tuple[int, int, str]:
            registers = sessions[session_id]
            moved_at, _ = registers.get("moved_at", (-1, b""))
            return moved_at, registers["updated_at"][0], session_id

        session_id = max(sessions, key=rank)
        updated_at, values = sessions[session_id]["updated_at"]
        return Stopped(session_id, updated_at=EPOCH + updated_at * MICROSECOND, **orjson.loads(values))
