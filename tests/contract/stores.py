"""Each sink as the contract sees it: how one is made over a client, what is folded into it, and what it then holds."""

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.leaderboard import leaderboard
from projections.positions import positions
from projections.projection import Projection
from projections.queries.leaderboard import Leaderboard
from projections.queries.resume import Resume
from projections.resume import resume
from projections.search import search
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.memory import MemorySink
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.sink import Sink
from projections.statistics import statistics
from schemas.envelope import Decoded
from schemas.events import Event
from tests.contract.gates import Gated, GatedPool, Gates, gone
from tests.given import EVENING, announced, deleted, recorded, stopped, transcoded, uploaded, viewed

NOW = EVENING + timedelta(hours=1)
VIDEOS, VIEWERS = ("alien", "heat", "ran"), ("ann", "bob")
ticks = itertools.count()


def views_of(numbers: Sequence[int]) -> list[Event]:
    return [viewed(VIDEOS[n % 3], f"view-{i}", at=f"20:{n % 60:02}") for i, n in enumerate(numbers)]


def positions_of(numbers: Sequence[int]) -> list[Event]:
    states = ("playing", "paused", None)
    return [
        stopped(
            VIEWERS[n % 2],
            VIDEOS[n % 3],
            at=f"20:{n % 60:02}:{i % 60:02}",
            seconds=n,
            session="tv",
            state=states[n % 3],
        )
        for i, n in enumerate(numbers)
    ]


def films_of(numbers: Sequence[int]) -> list[Event]:
    kinds: tuple[Callable[[str], Event], ...] = (announced, uploaded, transcoded, deleted)
    return [announced(VIDEOS[n % 3], f"Film {n}") if n % 4 == 0 else kinds[n % 4](VIDEOS[n % 3]) for n in numbers]


class Store:
    """One projection in one store. `sink()` makes another worker's sink over a line of its own, with its own gates."""

    name: str
    projection: Projection
    events_of: Callable[[Sequence[int]], list[Event]]

    def sink(self, gates: Gates | None = None) -> Sink:
        raise NotImplementedError

    def gates(self) -> Gates:
        return Gates(gone(self.name.partition(" ")[0]))

    def decoded(self, numbers: Sequence[int]) -> list[Decoded]:
        """Events that lie two offsets apart: aborted transactions leave such gaps."""
        events = type(self).events_of(numbers)
        return [item for i, event in enumerate(events) for item in recorded([event], first_offset=2 * i)]

    async def state(self) -> Any:
        """All that was folded, as plain values."""
        raise NotImplementedError


class Memory(Store):
    name, projection, events_of = "memory", statistics, views_of

    def __init__(self) -> None:
        self._sink = MemorySink(statistics)

    def sink(self, gates: Gates | None = None) -> Sink:
        return self._sink

    async def state(self) -> Any:
        return [self._sink.rows(table) for table in ("hourly", "daily")]


class Postgres(Store):
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def sink(self, gates: Gates | None = None) -> Sink:
        return PostgresSink(GatedPool(self._pool, gates) if gates else self._pool, self.projection)


class PostgresCounters(Postgres):
    name, projection, events_of = "postgres counters", statistics, views_of

    async def state(self) -> Any:
        tables = ("hourly_v1", "daily_v1")
        return [
            [dict(row) for row in await self._pool.fetch(f"select * from {t} order by video_id, start")] for t in tables
        ]


class PostgresRegisters(Postgres):
    name, projection, events_of = "postgres registers", positions, positions_of

    async def state(self) -> Any:
        rows = await self._pool.fetch("select * from positions_v1 order by viewer_id, video_id, session_id")
        return [dict(row) for row in rows]


class RedisStore(Store):
    def __init__(self, redis: Any, prefix: str) -> None:
        self._redis, self._prefix = redis, prefix

    def sink(self, gates: Gates | None = None) -> Sink:
        return RedisSink(Gated(self._redis, gates) if gates else self._redis, self.projection, self._prefix)  # type: ignore[arg-type]


class RedisBoard(RedisStore):
    name, projection, events_of = "redis board", leaderboard, views_of

    async def state(self) -> Any:
        # A board can be read once it has been ticked; every tick lies within the same minute.
        await self.sink().tick(NOW + timedelta(milliseconds=next(ticks) % 50_000))
        reads = Leaderboard(self._redis, self._prefix)
        return [(await reads.top(10, window)).items for window in ("hour", "day", "all_time")]


class RedisRegisters(RedisStore):
    name, projection, events_of = "redis registers", resume, positions_of

    async def state(self) -> Any:
        reads = Resume(self._redis, self._prefix)
        return [await reads.position(viewer, video) for viewer in VIEWERS for video in VIDEOS]


class Elasticsearch(Store):
    name, projection, events_of = "elasticsearch", search, films_of

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def sink(self, gates: Gates | None = None) -> Sink:
        return ElasticsearchSink(Gated(self._client, gates) if gates else self._client, search, self._prefix)  # type: ignore[arg-type]

    async def state(self) -> Any:
        found = await self._client.mget(index=f"{self._prefix}search.v1", ids=list(VIDEOS))
        return [document.get("_source") for document in found["docs"]]


STORES = ("memory", "postgres counters", "postgres registers", "redis board", "redis registers", "elasticsearch")


@asynccontextmanager
async def open_store(name: str, settings: Settings) -> AsyncIterator[Store]:
    """An empty store of that name."""
    async with AsyncExitStack() as opened:
        store: Store = Memory()
        if name.startswith("postgres"):
            await provision_tables(settings)
            pool = await opened.enter_async_context(open_postgres(settings))
            store = PostgresCounters(pool) if name.endswith("counters") else PostgresRegisters(pool)
        elif name.startswith("redis"):
            redis = await opened.enter_async_context(open_redis(settings))
            store = (RedisBoard if name.endswith("board") else RedisRegisters)(redis, settings.prefix)
        elif name == "elasticsearch":
            client = await opened.enter_async_context(open_elasticsearch(settings))
            store = Elasticsearch(client, settings.prefix)
        await store.sink().prepare()
        if isinstance(store, RedisBoard):
            await store.sink().tick(NOW)
        try:
            yield store
        finally:
            await store.sink().drop()
