"""Read your own write: `?after=TOKEN` waits until the projection that answers has folded what the token names."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal

import structlog
from aiohttp import web
from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis
from redis.exceptions import RedisError

from compose.log import EventLog
from compose.settings import Settings
from gateway.answers import Query, bad_parameter, secret_of
from gateway.keys import FRESHNESS
from gateway.problems import unavailable
from projections.queries.checkpoints import Checkpoints, checkpoints_of
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres
from projections.sinks.redis_keys import channel
from projections.sinks.sink import StoreUnavailable
from schemas.log import Place, WrongToken, read_token
from schemas.streams import streams

PATIENCE_SECONDS = 5.0
SOON_SECONDS = 0.05  # most writes are folded by then, and the broker need not be asked
LOOK_AGAIN_SECONDS = 0.1  # in case a message was lost: messages only make the wait shorter
LISTEN_AGAIN_SECONDS = 1.0
MAX_WAITING = 1_000  # requests of one process

logger = structlog.get_logger(__name__)


class After(Query):
    """`after` waits for a write; `stale=ok` takes what is there when it does not come in time."""

    after: str | None = None
    stale: Literal["ok"] | None = None


class Freshness:
    """Waits for checkpoints. Sinks tell of each move; every tenth of a second it is looked at all the same."""

    def __init__(
        self,
        settings: Settings,
        versions: Versions,
        log: EventLog,
        pool: Any,
        redis: Redis,
        elasticsearch: AsyncElasticsearch,
    ) -> None:
        self._settings = settings
        self._versions = versions
        self._log = log
        self._pool = pool
        self._redis = redis
        self._elasticsearch = elasticsearch
        self._moved = asyncio.Event()
        self._waiting = 0

    async def wait(
        self, projections: Iterable[str], places: Iterable[Place], seconds: float = PATIENCE_SECONDS
    ) -> bool:
        """Whether all of `projections` have folded those of `places` that lie on their topics, within `seconds`."""
        wanted = [
            (name, place)
            for name in projections
            for place in places
            if place.topic in streams().projections[name].topics
        ]
        if self._waiting >= MAX_WAITING:
            raise unavailable("Waiting", "too many reads wait for their write; read without `after`, or a little later")
        self._waiting += 1
        deadline = time.monotonic() + seconds
        try:
            while True:
                moved = self._moved
                wanted = [item for item in wanted if not await self._is_folded(*item)]
                remaining_seconds = deadline - time.monotonic()
                if not wanted or remaining_seconds <= 0:
                    return not wanted
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(moved.wait(), min(LOOK_AGAIN_SECONDS, remaining_seconds))
        finally:
            self._waiting -= 1

    async def check_in_log(self, places: Iterable[Place]) -> None:
        """Raises Problem for a place that the log does not hold: nobody could have written there."""
        partitions = {name: topic.partitions for name, topic in streams().topics.items()}
        for place in places:
            if place.partition >= partitions.get(place.topic, 0):
                raise bad_parameter("after", f"names {place.topic}/{place.partition}, which is not there")
        ends = await self._log.ends([(place.topic, place.partition) for place in places])
        for place in places:
            if place.offset >= ends[place.topic, place.partition]:
                raise bad_parameter("after", f"names {place}, which lies beyond the end of the log")

    async def _is_folded(self, projection: str, place: Place) -> bool:
        checkpoints = self._checkpoints(projection)
        at = place.topic, place.partition
        return (await checkpoints.next_offsets([at]))[at] > place.offset

    def _checkpoints(self, projection: str) -> Checkpoints:
        version = self._versions.active(projection)
        return checkpoints_of(version, self._settings.prefix, self._pool, self._redis, self._elasticsearch)

    def tell(self) -> None:
        """A checkpoint has moved: everybody who waits looks again."""
        self._moved.set()
        self._moved = asyncio.Event()

    def _heard(self, *_: object) -> None:
        self.tell()

    async def listen_to_redis(self) -> None:
        """Hear of every move in Redis, for as long as the process lives."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self._redis.pubsub() as messages:
                    await messages.subscribe(channel(self._settings.prefix))
                    while True:
                        # A time-out of its own: the client's would end a subscription that is merely quiet.
                        if await messages.get_message(ignore_subscribe_messages=True, timeout=1.0):
                            self.tell()
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def listen_to_postgres(self) -> None:
        """Hear of every move in Postgres, for as long as the process lives."""
        while True:
            with contextlib.suppress(StoreUnavailable), reaching_postgres():
                async with self._pool.acquire() as connection:
                    name = f"{self._settings.postgres_schema}_checkpoints"
                    await connection.add_listener(name, self._heard)
                    try:
                        while not connection.is_closed():
                            await connection.fetchval("select 1")
                            await asyncio.sleep(LISTEN_AGAIN_SECONDS)
                    finally:
                        await connection.remove_listener(name, self._heard)
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)


async def wait_for_writes(request: web.Request, after: After, *projections: str) -> None:
    """What `?after=` asks for, before `projections` answer.

    Raises Problem: 400 for a token that is none or lies beyond the log's end, 503 when the write is not folded in five seconds, unless
    `stale=ok`.
    """
    if after.after is None:
        return
    freshness = request.app[FRESHNESS]
    try:
        places = read_token(after.after, secret_of(request))
    except WrongToken as error:
        raise bad_parameter("after", str(error)) from None
    relevant = [p for p in places if any(p.topic in streams().projections[name].topics for name in projections)]
    try:
        if await freshness.wait(projections, relevant, SOON_SECONDS):
            return
        await freshness.check_in_log(relevant)
        if await freshness.wait(projections, relevant):
            return
    except StoreUnavailable:
        # `stale=ok` takes what another store still answers; the handler's own fallbacks decide.
        if after.stale is None:
            raise
    if after.stale is None:
        raise unavailable(
            "Your write",
            f"{', '.join(projections)} had not folded it after {PATIENCE_SECONDS:g} s; `stale=ok` takes what is there",
        )


@contextlib.asynccontextmanager
async def open_freshness(
    settings: Settings, versions: Versions, log: EventLog, pool: Any, redis: Redis, elasticsearch: AsyncElasticsearch
) -> AsyncIterator[Freshness]:
    """Listens as long as it is open."""
    freshness = Freshness(settings, versions, log, pool, redis, elasticsearch)
    listening = [asyncio.create_task(freshness.listen_to_redis()), asyncio.create_task(freshness.listen_to_postgres())]
    try:
        yield freshness
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
