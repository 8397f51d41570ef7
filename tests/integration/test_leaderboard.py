"""The board in Redis against a model that keeps every view: whatever comes, late, again or cut short, all six windows are the model's."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnected

from compose.connections import open_redis
from compose.settings import Settings
from projections.changes import Change, Increment, Upsert
from projections.leaderboard import WINDOWS, leaderboard
from projections.queries.leaderboard import Leaderboard
from projections.sinks.redis import RedisSink
from projections.sinks.redis_layout import Limits
from projections.sinks.sink import CheckpointMoved, LogIdentity, StoreUnavailable

pytestmark = pytest.mark.usefixtures("redis")

LOG = LogIdentity("cluster", "topic", 2)
START = datetime(2026, 2, 27, 23, 58, 30, tzinfo=UTC)  # so that small steps cross a minute, an hour, a day and a month
TINY = Limits(rows=3, leaving=2, worth_packing=1)
MINUTE = timedelta(minutes=1)
numbers = count()


def minute_at(moment: datetime) -> int:
    return int(moment.timestamp()) // 60


class Model:
    """Every view there was; a window is the sum of those whose bucket is not before its edge."""

    def __init__(self) -> None:
        self.log: dict[int, list[Change]] = {0: [], 1: []}
        self.folded: dict[int, int] = {0: 0, 1: 0}
        self.now: datetime | None = None

    def windows(self) -> dict[str, dict[str, int]]:
        return {window.name: self._window(window.bucket, window.buckets) for window in WINDOWS}

    def _window(self, bucket: timedelta | None, buckets: int) -> dict[str, int]:
        folded = [change for partition, log in self.log.items() for change in log[: self.folded[partition]]]
        deleted = {change.key["video_id"] for change in folded if isinstance(change, Upsert)}
        minutes = bucket // MINUTE if bucket else 1
        edge = minute_at(self.now) // minutes - buckets + 1 if bucket and self.now else 0
        views: dict[str, int] = {}
        for change in folded:
            if isinstance(change, Increment) and change.key["minute"] // minutes >= edge:
                views[change.key["video_id"]] = views.get(change.key["video_id"], 0) + change.by
        return {video_id: n for video_id, n in views.items() if video_id not in deleted}


class CutOff(Redis):
    """A client whose connection breaks at its nth command: before the server has it, or after, with the answer lost."""

    breaks_at = 0
    answer_lost = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.breaks_at -= 1
        if self.breaks_at == 0:
            if self.answer_lost:
                await super().execute_command(*args, **options)
            raise NotConnected("cut off")
        return await super().execute_command(*args, **options)


class Append(NamedTuple):
    partition: int
    changes: list[tuple[str, int]]  # a film and how many minutes ago; a film and -99: deleted


class Fold(NamedTuple):
    partition: int
    batch: int


class Tick(NamedTuple):
    minutes: int


class Crash(NamedTuple):
    at: int
    answer_lost: bool
    during: Fold | Tick


class Together(NamedTuple):
    actions: list[Fold | Tick]


DELETED = -99
films = st.sampled_from([f"film-{i}" for i in range(6)])
edges = [0, 59, 60, 61, 23 * 60, 24 * 60, 167 * 60, 168 * 60, 29 * 1440, 30 * 1440, 364 * 1440, 365 * 1440]
ages = st.one_of(
    st.integers(-1, 3),
    st.sampled_from(edges).flatmap(lambda edge: st.integers(max(-1, edge - 3), edge + 3)),
    st.integers(0, 500 * 1440),
    st.just(DELETED),
)
partitions = st.integers(0, 1)
appends = st.builds(Append, partitions, st.lists(st.tuples(films, ages), min_size=1, max_size=12))
folds = st.builds(Fold, partitions, st.integers(1, 12))
ticks = st.builds(
    Tick, st.one_of(st.integers(-2, 3), st.sampled_from([59, 60, 61, 23 * 60, 1440, 7 * 1440, 30 * 1440, 366 * 1440]))
)
crashes = st.builds(Crash, st.integers(1, 25), st.booleans(), folds | ticks)
together = st.builds(Together, st.lists(folds | ticks, min_size=2, max_size=4))


class World:
    """The board under test beside its model; each action is done to both."""

    def __init__(self, redis: Redis, prefix: str, shards: int) -> None:
        self.redis = redis
        self.prefix = prefix
        self.shards = shards
        self.model = Model()
        self.clock = START
        self.sink = self.new_sink(redis)
        self.board = Leaderboard(redis, prefix, shards=shards)

    def new_sink(self, redis: Redis) -> RedisSink:
        return RedisSink(redis, leaderboard, self.prefix, shards=self.shards, limits=TINY)

    def append(self, action: Append) -> None:
        for film, age in action.changes:
            minute = minute_at(self.clock) - age
            if age == DELETED:
                self.model.log[action.partition].append(Upsert("deleted", key={"video_id": film}, values={}))
            else:
                change = Increment("views", key={"video_id": film, "minute": minute})
                self.model.log[action.partition].append(change)

    async def fold(self, sink: RedisSink, action: Fold) -> None:
        """Fold a batch from wherever the sink says that it is, as a worker does after any start."""
        partition = action.partition
        place = (await sink.checkpoint("views", partition, LOG)).place
        next_offset = min(place.offset + action.batch, len(self.model.log[partition]))
        changes = self.model.log[partition][place.offset : next_offset]
        await sink.apply(
            changes, expected=place, next_offset=next_offset, offsets=range(place.offset, place.offset + len(changes))
        )

    async def act(self, sink: RedisSink, action: Fold | Tick) -> None:
        if isinstance(action, Fold):
            await self.fold(sink, action)
        else:
            self.clock += action.minutes * MINUTE
            self.model.now = max(self.model.now or self.clock, self.clock)
            await sink.tick(self.clock)

    async def do(self, action: Append | Fold | Tick | Crash | Together) -> None:
        match action:
            case Append():
                self.append(action)
            case Fold() | Tick():
                await self.act(self.sink, action)
            case Crash(at, answer_lost, during):
                await self.crash(at, answer_lost, during)
            case Together(actions):
                sinks = [self.new_sink(self.redis) for _ in actions]
                done = await asyncio.gather(*map(self.act, sinks, actions), return_exceptions=True)
                assert all(result is None or isinstance(result, CheckpointMoved) for result in done), done
        for partition in self.model.folded:
            place = (await self.sink.checkpoint("views", partition, LOG)).place
            self.model.folded[partition] = place.offset

    async def crash(self, at: int, answer_lost: bool, during: Fold | Tick) -> None:
        client = CutOff(connection_pool=self.redis.connection_pool)
        client.breaks_at, client.answer_lost = at, answer_lost
        try:
            await self.act(self.new_sink(client), during)
        except StoreUnavailable:
            self.sink = self.new_sink(self.redis)
        # Whoever comes after a crash ticks; a shard that is ahead of others is caught up by folding on.
        await self.sink.tick(self.clock)
        if isinstance(during, Fold):
            await self.fold(self.sink, Fold(during.partition, len(self.model.log[during.partition])))

    async def windows(self) -> dict[str, dict[str, int]]:
        tops = [await self.board.top(1_000, window.name) for window in WINDOWS]
        return {top.timeframe: {item.video_id: item.views for item in top.items} for top in tops}


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Redis]:
    async with open_redis(settings) as redis:
        yield redis


@pytest.mark.parametrize("shards", [1, 3])
@given(actions=st.lists(st.one_of(appends, appends, folds, ticks, crashes, together), max_size=30))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_all_six_windows_are_the_sum_of_their_buckets_whatever_happens(
    client: Redis, settings: Settings, shards: int, actions: list[Append | Fold | Tick | Crash | Together]
) -> None:
    world = World(client, f"{settings.prefix}{next(numbers)}_", shards)
    await world.sink.prepare()
    await world.do(Tick(0))
    for action in actions:
        await world.do(action)
        assert await world.windows() == world.model.windows(), action
    await world.sink.drop()
    assert not [key async for key in client.scan_iter(match=f"{world.prefix}*", count=1_000)]
