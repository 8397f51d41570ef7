"""Read your own write: `?after=TOKEN` waits until the projection that answers has folded what the token names."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import structlog
from aiohttp import web
from elasticsearch import AsyncElasticsearch
from pydantic import Field
from redis.asyncio import Redis
from redis.exceptions import RedisError

from compose.ending import end
from compose.hearing import LISTEN_AGAIN_SECONDS, hear
from compose.log import EventLog, LogUnavailable
from compose.settings import Settings
from gateway.answers import Query, bad_parameter, secret_of
from gateway.joint import Joint
from gateway.keys import FRESHNESS
from gateway.metrics import FRESHNESS_WAIT_SECONDS, FRESHNESS_WAITS
from gateway.problems import unavailable
from gateway.waiting import Waiting
from projections.queries.checkpoints import checkpoints_of
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres
from projections.sinks.redis_keys import channel, waits
from projections.sinks.sink import StoreUnavailable
from schemas.log import Place, WrongToken, furthest, read_token
from schemas.streams import streams

PATIENCE_SECONDS = 5.0  # of one request, however many projections answer it
SOON_SECONDS = 0.05  # most writes are folded by then, and the broker need not be asked
# In case a message was lost: messages only make the wait shorter. Elasticsearch tells nobody.
LOOK_AGAIN_SECONDS = {"postgres": 0.2, "redis": 0.2, "elasticsearch": 0.025, "memory": 0.025}
MAX_WAITING = 1_000  # requests of one process
MAX_TOKENS = 16
STALE_HEADER = "X-Stale"
DEADLINE = web.RequestKey("deadline", float)
STALE = web.RequestKey("stale", set[str])

logger = structlog.get_logger(__name__)


class After(Query):
    """`after` waits for a write; `stale=ok` takes what is there when it does not come in time."""

    after: str | None = Field(None, description="`X-Event-Position` of a write, or of several with commas between")
    stale: Literal["ok"] | None = Field(None, description="rather an old answer than none: `X-Stale` says that it is")


class Freshness:
    """Waits for checkpoints, of which sinks tell each move."""

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
        self._versions_waited_for: dict[str, Waiting] = {}
        self._ends: Mapping[tuple[str, int], int] = {}
        self._ask_ends = Joint(self._read_ends)
        self._waiting = 0
        self._begun: set[asyncio.Task[None]] = set()

    async def wait(
        self, projections: Iterable[str], places: Iterable[Place], seconds: float = PATIENCE_SECONDS
    ) -> bool:
        """Whether all of `projections` have folded those of `places` that lie on their topics, within `seconds`.

        Raises StoreUnavailable when a checkpoint cannot be read, Problem when too many wait.
        """
        wanted = {
            name: [place for place in places if place.topic in streams().projections[name].reads]
            for name in projections
        }
        if self._waiting >= MAX_WAITING:
            raise unavailable("Waiting", "too many reads wait for their write; read without `after`, or a little later")
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._waiting_for(name).wait(lying) for name, lying in wanted.items() if lying))
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    async def check_in_log(self, places: Iterable[Place]) -> None:
        """Raises Problem for a place that the log does not hold: nobody could have written there; LogUnavailable when it cannot say."""
        partitions = {name: topic.partitions for name, topic in streams().topics.items()}
        for place in places:
            if place.partition >= partitions.get(place.topic, 0):
                raise bad_parameter("after", f"names {place.topic}/{place.partition}, which is not there")
        if any(self._is_beyond(place) for place in places):
            self._ends = await self._ask_ends()
        for place in places:
            if self._is_beyond(place):
                raise bad_parameter("after", f"names {place}, which lies beyond the end of the log")

    def hear(self, told: str) -> None:
        """Checkpoints have moved, a line each: `leaderboard_v1 views 3 41207`."""
        for line in told.splitlines():
            version, topic, partition, next_offset = line.split()
            if waiting := self._versions_waited_for.get(version):
                waiting.tell(topic, int(partition), int(next_offset))

    async def close(self) -> None:
        for waiting in self._versions_waited_for.values():
            await waiting.close()
        await end(*self._begun)

    async def _read_ends(self) -> Mapping[tuple[str, int], int]:
        return await self._log.ends(
            (name, number) for name, topic in streams().topics.items() for number in range(topic.partitions)
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    def _is_beyond(self, place: Place) -> bool:
        return place.offset >= self._ends.get((place.topic, place.partition), 0)

    def _waiting_for(self, projection: str) -> Waiting:
        version = self._versions.active(projection)
        if version.full_name not in self._versions_waited_for:
            checkpoints = checkpoints_of(version, self._settings.prefix, self._pool, self._redis, self._elasticsearch)
            look_again_seconds = LOOK_AGAIN_SECONDS[streams().projections[projection].sink]
            # Who folds rests between two fetches, but not while somebody waits. Nobody waits for its being said: Redis may be away.
            say = Joint(partial(self._say_what_is_waited_for, version.full_name))
            self._versions_waited_for[version.full_name] = Waiting(
                checkpoints, look_again_seconds, lambda: self._begin(say())
            )
        return self._versions_waited_for[version.full_name]

    async def _say_what_is_waited_for(self, full_name: str) -> None:
        places = [place.id for place in self._versions_waited_for[full_name].furthest]
        with contextlib.suppress(RedisError, OSError):
            await self._redis.publish(waits(self._settings.prefix), " ".join([full_name, *places]))

    async def listen_to_redis(self) -> None:
        """Hear of every move in Redis, for as long as the process lives."""
        await hear(self._redis, channel(self._settings.prefix), self.hear)

    async def listen_to_postgres(self) -> None:
        """Hear of every move in Postgres, for as long as the process lives."""

        def hear(*told: Any) -> None:
            self.hear(told[-1])

        while True:
            with contextlib.suppress(StoreUnavailable), reaching_postgres():
                async with self._pool.acquire() as connection:
                    name = f"{self._settings.postgres_schema}_checkpoints"
                    await connection.add_listener(name, hear)
                    try:
                        while not connection.is_closed():
                            await connection.fetchval("select 1")
                            await asyncio.sleep(LISTEN_AGAIN_SECONDS)
                    finally:
                        await connection.remove_listener(name, hear)
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)


async def wait_for_writes(request: web.Request, after: After, *projections: str) -> None:
    """What `?after=` asks for, before `projections` answer.

    Raises Problem: 400 for a token that is none or lies beyond the log's end, 503 when the write is not folded in five seconds, unless
    `stale=ok`: then the answer's header `X-Stale` names the projections. Raises StoreUnavailable when what answers cannot be asked; the
    handler's own fallbacks wait for what answers instead.
    """
    if after.after is None:
        return
    places = _places(after.after, secret_of(request))
    topics = {name: set(streams().projections[name].topics) for name in projections}
    relevant = [place for place in places if any(place.topic in read for read in topics.values())]
    concerned = [name for name, read in topics.items() if read & {place.topic for place in places}]
    began = asyncio.get_running_loop().time()
    outcome = "unavailable"
    try:
        deadline = request.setdefault(DEADLINE, began + PATIENCE_SECONDS)
        is_seen = await _is_seen(request.app[FRESHNESS], concerned, relevant, deadline)
        outcome = "seen" if is_seen else "late" if after.stale is None else "stale"
    finally:
        if concerned:
            FRESHNESS_WAITS.labels(outcome).inc()
            FRESHNESS_WAIT_SECONDS.observe(asyncio.get_running_loop().time() - began)
    if is_seen:
        return
    if after.stale is None:
        names = " and ".join(concerned)
        detail = f"{names} had not folded it after {PATIENCE_SECONDS:g} s; `stale=ok` takes what is there"
        raise unavailable("Your write", detail)
    request.setdefault(STALE, set()).update(concerned)


async def _is_seen(freshness: Freshness, projections: list[str], places: list[Place], deadline: float) -> bool:
    now = asyncio.get_running_loop().time
    if await freshness.wait(projections, places, min(SOON_SECONDS, deadline - now())):
        return True
    # The log is not needed to read: while it is down it is only not known whether the write is one.
    with contextlib.suppress(LogUnavailable):
        await freshness.check_in_log(places)
    return await freshness.wait(projections, places, deadline - now())


def _places(tokens: str, secret: str) -> list[Place]:
    """The places of every token, of several on one partition the furthest. Raises Problem."""
    parts = tokens.split(",")
    if len(parts) > MAX_TOKENS:
        raise bad_parameter("after", f"holds {len(parts)} tokens; at most {MAX_TOKENS} are read here")
    try:
        return furthest(place for part in parts for place in read_token(part, secret))
    except WrongToken as error:
        raise bad_parameter("after", str(error)) from None


async def tell_stale(request: web.Request, response: web.StreamResponse) -> None:
    """The header of an answer that does not hold the write that was asked for, before it is sent."""
    if stale := request.get(STALE):
        response.headers[STALE_HEADER] = ", ".join(sorted(stale))


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
        await end(*listening)
        await freshness.close()
