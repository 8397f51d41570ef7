"""Each sink as the contract sees it: how one is made over a client, what is folded into it, and what it then holds."""

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.leaderboard import WINDOWS, leaderboard
from projections.positions import positions
from projections.projection import Projection
from projections.queries.contents import written
from projections.queries.leaderboard import Leaderboard
from projections.queries.redis_contents import redis_rows
from projections.queries.resume import Resume
from projections.queries.versions import Versions, declared
from projections.resume import resume
from projections.search import search
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.memory import MemorySink
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.redis_layout import Limits
from projections.sinks.sink import Sink
from projections.statistics import statistics
from projections.views import views
from schemas.decoded import Decoded
from schemas.events import Event, VideoViewed
from tests.contract.gates import Gated, GatedPool, Gates, gone
from tests.given import EVENING, announced, deleted, forgotten, recorded, stopped, transcoded, uploaded, viewed

NOW = EVENING + timedelta(minutes=59)  # every view below lies within its hour
VIDEOS, VIEWERS = ("alien", "heat", "ran"), ("ann", "bob")
FORGETTING = 5
ticks = itertools.count()


def views_of(numbers: Sequence[int], cast: Sequence[str]) -> list[Event]:
    return [viewed(cast[n % 3], f"view-{i}", at=f"20:{n % 60:02}") for i, n in enumerate(numbers)]


def whose(n: int, cast: Sequence[str]) -> str:
    """A viewer of the partition that has this cast."""
    return viewers_of(cast)[n % 2]


def viewers_of(cast: Sequence[str]) -> list[str]:
    return [f"{viewer}-{cast[0].rpartition('-')[2]}" for viewer in VIEWERS]


def is_forgetting(n: int) -> bool:
    return n % 12 == FORGETTING


def views_of_viewers(numbers: Sequence[int], cast: Sequence[str]) -> list[Event]:
    """Some viewers are forgotten before their last view, or even before their first."""
    return [
        forgotten(whose(n // 12, cast))
        if is_forgetting(n)
        else viewed(cast[n % 3], f"view-{i}", at=f"20:{n % 60:02}", viewer=whose(n, cast), session="tv")
        for i, n in enumerate(numbers)
    ]


def positions_of(numbers: Sequence[int], cast: Sequence[str]) -> list[Event]:
    states = ("playing", "paused", None)
    return [
        forgotten(whose(n // 12, cast))
        if is_forgetting(n)
        else stopped(
            whose(n, cast),
            cast[n % 3],
            at=f"20:{n % 60:02}:{i % 60:02}",
            seconds=n,
            session="tv",
            state=states[n % 3],
        )
        for i, n in enumerate(numbers)
    ]


def films_of(numbers: Sequence[int], cast: Sequence[str]) -> list[Event]:
    kinds: tuple[Callable[[str], Event], ...] = (announced, uploaded, transcoded, deleted)
    return [announced(cast[n % 3], f"Film {n}") if n % 4 == 0 else kinds[n % 4](cast[n % 3]) for n in numbers]


class Store:
    """One projection in one store. `sink()` makes another worker's sink over a line of its own, with its own gates.

    Each partition has films of its own, so that what one trial has written is out of the way of the next.
    """

    name: str
    projection: Projection
    events_of: Callable[[Sequence[int], Sequence[str]], list[Event]]

    def sink(self, gates: Gates | None = None) -> Sink:
        raise NotImplementedError

    def gates(self) -> Gates:
        return Gates(gone(self.name.partition(" ")[0]))

    def decoded(self, numbers: Sequence[int], partition: int) -> list[Decoded]:
        """Events that lie two offsets apart: aborted transactions leave such gaps."""
        events = type(self).events_of(numbers, cast_of(partition))
        return [
            item
            for i, event in enumerate(events)
            for item in recorded([event], partition=partition, first_offset=2 * i)
        ]

    async def state(self, partition: int) -> Any:
        """All that was folded of the partition, as plain values."""
        raise NotImplementedError

    def plainly(self, decoded: Sequence[Decoded]) -> Any:
        """What `state` ought to be: the same events folded in memory, one by one."""
        raise NotImplementedError


def cast_of(partition: int) -> list[str]:
    """The films of a partition."""
    return [f"{video}-{partition}" for video in VIDEOS]


def rows_of(projection: Projection, decoded: Sequence[Decoded], table: str) -> list[dict[str, Any]]:
    """The rows of `table` in memory, in the order of films, viewers and times."""
    memory = MemorySink(projection)
    for change in projection.fold(decoded):
        memory.write(change)
    return in_order([dict(row) for row in memory.rows(table)])


def in_order(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = ("video_id", "viewer_id", "session_id", "start")
    return sorted(map(dict, rows), key=lambda row: [str(row.get(name)) for name in names])


class Counters(Store):
    projection, events_of = statistics, views_of

    def plainly(self, decoded: Sequence[Decoded]) -> Any:
        return [rows_of(statistics, decoded, table) for table in ("hourly", "daily")]


class Memory(Counters):
    name = "memory"

    def __init__(self) -> None:
        self._sink = MemorySink(statistics)

    def sink(self, gates: Gates | None = None) -> Sink:
        return self._sink

    async def state(self, partition: int) -> Any:
        cast = cast_of(partition)
        return [
            in_order(row for row in self._sink.rows(table) if row["video_id"] in cast) for table in ("hourly", "daily")
        ]


class Postgres(Store):
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def sink(self, gates: Gates | None = None) -> Sink:
        return PostgresSink(GatedPool(self._pool, gates) if gates else self._pool, self.projection)

    async def _rows(self, table: str, partition: int) -> list[dict[str, Any]]:
        sql = f"select * from {table}_v{self.projection.version} where video_id = any($1::text[])"
        return in_order(await self._pool.fetch(sql, cast_of(partition)))


class PostgresCounters(Postgres, Counters):
    name = "postgres counters"

    async def state(self, partition: int) -> Any:
        return [await self._rows("hourly", partition), await self._rows("daily", partition)]


class PostgresRegisters(Postgres):
    name, projection, events_of = "postgres registers", positions, positions_of

    async def state(self, partition: int) -> Any:
        return await self._rows("positions", partition)

    def plainly(self, decoded: Sequence[Decoded]) -> Any:
        # Who never moved has no such column in memory, and a null in a table.
        return [{"moved_at": None} | row for row in rows_of(positions, decoded, "positions")]


class PostgresRows(Postgres):
    name, projection, events_of = "postgres rows", views, views_of_viewers

    async def state(self, partition: int) -> Any:
        sql = "select * from views_v2 where log_partition = $1 order by log_offset"
        return [dict(row) for row in await self._pool.fetch(sql, partition)]

    def plainly(self, decoded: Sequence[Decoded]) -> Any:
        memory = MemorySink(views)
        for change in views.fold(decoded):
            memory.write(change)
        return sorted((dict(row) for row in memory.rows("views")), key=lambda row: row["log_offset"])


class RedisStore(Store):
    """Its sink writes at most `rows` a call: with few of them a batch goes over the journal."""

    def __init__(self, redis: Any, prefix: str, rows: int) -> None:
        self._redis, self._prefix = redis, prefix
        self._limits = Limits(rows=rows)

    def sink(self, gates: Gates | None = None) -> Sink:
        client = Gated(self._redis, gates) if gates else self._redis
        return RedisSink(client, self.projection, self._prefix, limits=self._limits)  # type: ignore[arg-type]

    async def snapshot(self) -> dict[bytes, bytes]:
        """Every key as Redis itself would save it."""
        keys = sorted([key async for key in self._redis.scan_iter(match=f"{self._prefix}*", count=1_000)])
        return {key: await self._redis.dump(key) for key in keys}

    async def restore(self, snapshot: Mapping[bytes, bytes]) -> None:
        """Nothing but the snapshot is there any more."""
        for key in await self.snapshot():
            await self._redis.unlink(key)
        for key, value in snapshot.items():
            await self._redis.restore(key, 0, value)

    async def contents(self) -> list[bytes]:
        """Everything that it holds, in canonical bytes."""
        version = declared(self.projection.name)
        return [written(row) async for row in redis_rows(self._redis, version.keys(self._prefix))]

    async def put_in_the_way(self, key: bytes) -> None:
        await self._redis.unlink(key)
        await self._redis.set(key, "in the way")

    async def take_out_of_the_way(self, key: bytes, value: bytes) -> None:
        await self._redis.restore(key, 0, value, replace=True)


class RedisBoard(RedisStore):
    name, projection, events_of = "redis board", leaderboard, views_of

    async def state(self, partition: int) -> Any:
        # A board can be read once it has been ticked; every tick lies within the same minute.
        await self.sink().tick(NOW + timedelta(milliseconds=next(ticks) % 50_000))
        reads = Leaderboard(self._redis, self._prefix, Versions())
        cast = cast_of(partition)
        return {
            window.name: {
                item.video_id: item.views
                for item in (await reads.top(1_000, window.name)).items
                if item.video_id in cast
            }
            for window in WINDOWS
        }

    def plainly(self, decoded: Sequence[Decoded]) -> Any:
        views = Counter(item.event.video_id for item in decoded if isinstance(item.event, VideoViewed))
        return {window.name: views for window in WINDOWS}


class RedisRegisters(RedisStore):
    name, projection, events_of = "redis registers", resume, positions_of

    async def state(self, partition: int) -> Any:
        reads = Resume(self._redis, self._prefix, Versions())
        places = [(video, viewer) for video in cast_of(partition) for viewer in viewers_of(cast_of(partition))]
        found = [await reads.position(viewer, video) for video, viewer in places]
        return [
            {"video_id": video, "viewer_id": viewer} | stopped._asdict()
            for (video, viewer), stopped in zip(places, found, strict=True)
            if stopped
        ]

    def plainly(self, decoded: Sequence[Decoded]) -> Any:
        # One session a viewer: when it moved decides nothing, and is not told.
        rows = rows_of(resume, decoded, "resume")
        return [{name: value for name, value in row.items() if name != "moved_at"} for row in rows]


class Elasticsearch(Store):
    name, projection, events_of = "elasticsearch", search, films_of

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def sink(self, gates: Gates | None = None) -> Sink:
        return ElasticsearchSink(Gated(self._client, gates) if gates else self._client, search, self._prefix)  # type: ignore[arg-type]

    async def state(self, partition: int) -> Any:
        found = await self._client.mget(index=f"{self._prefix}search.v1", ids=cast_of(partition))
        documents = [document["_source"] for document in found["docs"] if document["found"]]
        return [{n: v for n, v in document.items() if not n.endswith("_folded")} for document in documents]

    def plainly(self, decoded: Sequence[Decoded]) -> Any:
        # JSON knows no moments, only how they are written.
        rows = rows_of(search, decoded, "videos")
        return [{n: v.isoformat() if isinstance(v, datetime) else v for n, v in row.items()} for row in rows]


STORES = (
    "memory",
    "postgres counters",
    "postgres registers",
    "postgres rows",
    "redis board",
    "redis board in pieces",
    "redis registers",
    "redis registers in pieces",
    "elasticsearch",
)


@asynccontextmanager
async def open_store(name: str, settings: Settings) -> AsyncIterator[Store]:
    """An empty store of that name."""
    async with AsyncExitStack() as opened:
        store: Store = Memory()
        if name.startswith("postgres"):
            await provision_tables(settings)
            pool = await opened.enter_async_context(open_postgres(settings))
            kinds = {kind.name: kind for kind in (PostgresCounters, PostgresRegisters, PostgresRows)}
            store = kinds[name](pool)
        elif name.startswith("redis"):
            redis = await opened.enter_async_context(open_redis(settings))
            rows = 2 if name.endswith("in pieces") else Limits().rows
            store = (RedisBoard if "board" in name else RedisRegisters)(redis, settings.prefix, rows)
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
