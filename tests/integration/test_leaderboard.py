"""The board in Redis against a model that keeps every view: whatever comes, late, again or cut short, all six windows are the model's."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as NotConnected

from compose.connections import open_redis
from compose.settings import Settings
from projections.changes import Change, Increment, Upsert
from projections.leaderboard import WINDOWS, leaderboard
from projections.queries.board import read_board
from projections.queries.leaderboard import Leaderboard
from projections.queries.redis_checkpoints import RedisCheckpoints
from projections.queries.redis_contents import redis_rows
from projections.queries.rows import Row
from projections.queries.versions import Version, Versions
from projections.sinks.redis import RedisSink
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Limits
from projections.sinks.redis_packing import Numbered, pack, unpacked
from projections.sinks.redis_windows import SPANS
from projections.sinks.sink import CheckpointMoved, LogIdentity, StoreUnavailable
from schemas.log import Place

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
    """A client whose connection breaks at its nth command, or at one that holds this: before the server has it, or after it has."""

    breaks_at = 0
    breaks_on: str | None = None
    answer_lost = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.breaks_at -= 1
        names_it = self.breaks_on is not None and any(self.breaks_on in str(argument) for argument in args)
        if self.breaks_at == 0 or names_it:
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
        self.board = Leaderboard(redis, prefix, Versions([Version(leaderboard.name, 1, 1, shards, "active")]))
        self.keys = Keys(prefix, leaderboard.name, leaderboard.version)

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
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.fixture
async def world(client: Redis, settings: Settings) -> World:
    world = World(client, settings.prefix, shards=1)
    await world.sink.prepare()
    await world.do(Tick(0))
    return world


async def folded(world: World, *changes: tuple[str, int]) -> None:
    await world.do(Append(0, list(changes)))
    await world.do(Fold(0, len(changes)))


async def test_a_late_view_does_not_leave_a_window_that_it_never_entered(world: World) -> None:
    await folded(world, *((f"film-{i}", 0) for i in range(6)))
    # A worker dies when the first hour has half left the day; a view of that hour comes late, and others go on.
    hour = minute_at(START) // 60
    hours = next(span for span in SPANS if span.name == "hour")
    dying = CutOff(connection_pool=world.redis.connection_pool)
    dying.breaks_on = f"{hour} 6 2"  # the cursor after the first slice of two films
    with pytest.raises(StoreUnavailable):
        await world.new_sink(dying).tick(START + timedelta(hours=24))
    assert await world.redis.hexists(world.keys.state, "leaving:day")
    world.model.now = world.clock = START + timedelta(hours=24)
    await folded(world, ("film-1", 24 * 60), ("film-9", 24 * 60))
    for _ in range(2):  # the first would pack what leaves, the second the late views
        await pack(world.redis, world.keys, hours, hour, Numbered(world.redis, world.keys))
    await world.do(Tick(0))
    assert await world.windows() == world.model.windows()
    await world.do(Tick(8 * 24 * 60))
    assert await world.windows() == world.model.windows()


async def test_the_numbers_of_films_are_learnt_again_where_the_list_is_another_one(world: World) -> None:
    numbered = Numbered(world.redis, world.keys)
    await world.redis.rpush(world.keys.numbered, *(f"film-{number}" for number in range(1_200)))
    await numbered.learn()
    await world.redis.rpush(world.keys.numbered, "film-1200", "film-1201")
    await numbered.learn()
    assert numbered.ids == [f"film-{number}" for number in range(1_202)]
    await world.redis.delete(world.keys.numbered)
    await world.redis.rpush(world.keys.numbered, *(f"film-{number}" for number in range(1_300, 0, -1)))
    await numbered.learn()
    assert numbered.ids == [f"film-{number}" for number in range(1_300, 0, -1)]
    assert numbered.numbers == {video_id: number for number, video_id in enumerate(numbered.ids)}
    await world.redis.delete(world.keys.numbered)
    await numbered.learn()
    assert (numbered.ids, numbered.numbers) == ([], {})


async def test_what_a_release_without_numbers_packed_goes_on(world: World) -> None:
    await folded(world, *((f"film-{i}", 0) for i in range(6)))
    await world.do(Tick(90))
    hour = minute_at(START) // 60
    packed = world.keys.packed("hour", hour)
    numbered = [one.decode() for one in await world.redis.lrange(world.keys.numbered, 0, -1)]
    films, views = zip(*unpacked(await world.redis.get(packed), numbered).items(), strict=True)
    await world.redis.set(packed, zlib.compress(orjson.dumps([films, views])))
    await world.redis.delete(world.keys.numbered)
    await folded(world, ("film-1", 90), ("film-9", 90))
    for minutes in (20, 23 * 60, 8 * 24 * 60):
        await world.do(Tick(minutes))
        assert await world.windows() == world.model.windows()
    assert await world.redis.llen(world.keys.numbered) == 7


async def test_workers_that_pack_side_by_side_number_each_film_once(world: World) -> None:
    hours = next(span for span in SPANS if span.name == "hour")
    await folded(world, *((f"film-{minutes % 13}", minutes) for minutes in range(0, 600, 7)))
    before = await contents(world)
    numbers = [int(number) for number in await world.redis.hkeys(world.keys.buckets("hour"))]
    for _ in numbers:  # who comes between two others packs the next time
        each = (pack(world.redis, world.keys, hours, number, Numbered(world.redis, world.keys)) for number in numbers)
        await asyncio.gather(*each)
    assert all([await world.redis.exists(world.keys.packed("hour", number)) for number in numbers])
    assert sorted(await world.redis.lrange(world.keys.numbered, 0, -1)) == sorted(b"film-%d" % i for i in range(13))
    assert await contents(world) == before


async def test_lost_numbers_are_told_and_not_guessed(world: World) -> None:
    await folded(world, *((f"film-{i}", 0) for i in range(6)))
    await world.do(Tick(90))
    await world.redis.ltrim(world.keys.numbered, 0, 2)
    with pytest.raises(StoreUnavailable, match="rebuild the leaderboard"):
        await contents(world)
    with pytest.raises(StoreUnavailable, match="rebuild the leaderboard"):
        await world.sink.tick(START + timedelta(days=9))


async def contents(world: World) -> list[Row]:
    """Every row, however it lies."""
    return [row async for row in redis_rows(world.redis, [world.keys])]


async def test_a_batch_that_was_begun_is_finished_by_whoever_asks_for_the_checkpoint(world: World) -> None:
    changes = [(f"film-{i}", 0) for i in range(10)]
    await world.do(Append(0, changes))
    dying = CutOff(connection_pool=world.redis.connection_pool)
    dying.breaks_on = "0>10 2"  # on its way from 0 to 10, two pieces left
    with pytest.raises(StoreUnavailable):
        await world.fold(world.new_sink(dying), Fold(0, len(changes)))
    assert 0 < len((await world.windows())["all_time"]) < len(changes)
    assert (await world.new_sink(world.redis).checkpoint("views", 0, LOG)).next_offset == len(changes)
    world.model.folded[0] = len(changes)
    assert await world.windows() == world.model.windows()


async def test_batches_of_two_partitions_begun_as_one_are_finished_by_whoever_asks_for_either(world: World) -> None:
    changes = [(f"film-{i}", 0) for i in range(10)]
    dying = CutOff(connection_pool=world.redis.connection_pool)
    dying.breaks_on = "0>10 2 views/0"  # both on their way, two pieces left in the journal of the first
    sink, places = world.new_sink(dying), {}
    for partition in (0, 1):
        await world.do(Append(partition, changes))
        places[partition] = (await sink.checkpoint("views", partition, LOG)).place
    writing = (sink.apply(world.model.log[at], expected=place, next_offset=10) for at, place in places.items())
    failed = await asyncio.gather(*writing, return_exceptions=True)
    assert [type(error) for error in failed] == [StoreUnavailable] * 2
    assert await world.redis.hmget(world.keys.checkpoints, ["views/0", "views/1"]) == [b"0>10 3 views/0"] * 2
    board = await read_board(world.redis, world.keys, ["all_time"])
    assert board.windows["all_time"] == {f"film-{i}": 2 for i in range(10)}
    assert {place for place in board.places if place.topic == "views"} == {Place("views", 0, 10), Place("views", 1, 10)}
    assert (await world.new_sink(world.redis).checkpoint("views", 1, LOG)).next_offset == 10
    assert await world.redis.hmget(world.keys.checkpoints, ["views/0", "views/1"]) == [b"10", b"10"]
    world.model.folded |= {0: 10, 1: 10}
    assert await world.windows() == world.model.windows()


async def test_an_emptied_redis_is_folded_again_from_the_start(world: World) -> None:
    await folded(world, ("film-1", 0), ("film-2", 70))
    async for key in world.redis.scan_iter(match=f"{world.prefix}*"):
        await world.redis.unlink(key)
    with pytest.raises(CheckpointMoved):
        await world.sink.apply([], expected=Place("views", 0, 2), next_offset=3)
    await world.do(Fold(0, 9))
    await world.do(Tick(0))
    assert await world.windows() == world.model.windows()


async def test_redis_restored_from_an_older_snapshot_is_folded_on_from_there(world: World) -> None:
    await folded(world, ("film-1", 0))
    snapshot = {key: await world.redis.dump(key) async for key in world.redis.scan_iter(match=f"{world.prefix}*")}
    await folded(world, ("film-1", 0), ("film-2", 0))
    async for key in world.redis.scan_iter(match=f"{world.prefix}*"):
        await world.redis.unlink(key)
    for key, value in snapshot.items():
        await world.redis.restore(key, 0, value)
    with pytest.raises(CheckpointMoved):
        await world.sink.apply([], expected=Place("views", 0, 3), next_offset=4)
    await world.do(Fold(0, 9))
    assert await world.windows() == world.model.windows()


@pytest.mark.parametrize("films", [1, 10])
async def test_a_key_of_a_wrong_type_holds_the_partition_until_it_is_gone(world: World, films: int) -> None:
    await world.redis.set(world.keys.bucket("minute", minute_at(START)), "in the way")
    views = [Increment("views", key={"video_id": f"film-{i}", "minute": minute_at(START)}) for i in range(films)]
    place = (await world.sink.checkpoint("views", 0, LOG)).place
    with pytest.raises(StoreUnavailable, match="minute"):
        await world.sink.apply(views, expected=place, next_offset=films)
    assert (await world.sink.checkpoint("views", 0, LOG)).next_offset == 0
    assert await world.windows() == world.model.windows()
    await world.redis.unlink(world.keys.bucket("minute", minute_at(START)))
    await world.sink.apply(views, expected=place, next_offset=films)
    assert len((await world.windows())["hour"]) == films


async def test_a_window_that_lost_films_holds_the_partition_in_words(world: World) -> None:
    await folded(world, ("film-1", 0), ("film-2", 0))
    await world.redis.zrem(world.keys.top("week"), "film-1")
    with pytest.raises(StoreUnavailable, match="top:week has 1 members instead of 2: state is lost, rebuild"):
        await folded(world, ("film-3", 0))


async def test_deleted_films_take_no_place_in_a_top_list(world: World) -> None:
    views = [(f"film-{i}", 0) for i in range(9) for _ in range(i + 1)]
    await folded(world, *views, *((f"film-{i}", DELETED) for i in (8, 7, 6, 4)), ("film-8", 0))
    items = (await world.board.top(3, "hour")).items
    assert [(item.rank, item.video_id, item.views) for item in items] == [
        (1, "film-5", 6),
        (2, "film-3", 4),
        (3, "film-2", 3),
    ]


async def test_of_equal_views_the_greater_id_comes_first(world: World) -> None:
    await folded(world, ("film-1", 0), ("film-3", 0), ("film-2", 0))
    assert [item.video_id for item in (await world.board.top(2, "day")).items] == ["film-3", "film-2"]


async def test_a_top_list_says_what_it_covers(world: World) -> None:
    top = await world.board.top(1, "day")
    assert (top.from_, top.to, top.as_of) == (datetime(2026, 2, 27, tzinfo=UTC), START, START)
    assert (await world.board.top(1, "all_time")).from_ is None


async def test_a_clock_that_goes_backwards_brings_nothing_back(world: World) -> None:
    await world.do(Tick(120))
    await world.sink.tick(START)
    assert await world.board.as_of() == START + timedelta(hours=2)


async def test_a_board_that_nobody_has_made_is_unavailable(client: Redis, settings: Settings) -> None:
    with pytest.raises(StoreUnavailable, match="no leaderboard yet"):
        await Leaderboard(client, settings.prefix, Versions()).top(10, "day")
    with pytest.raises(StoreUnavailable, match="no leaderboard yet"):
        await Leaderboard(client, settings.prefix, Versions()).views("film-1")


async def test_each_move_of_a_checkpoint_is_told_once(world: World) -> None:
    async with world.redis.pubsub(ignore_subscribe_messages=True) as told:
        checkpoints = RedisCheckpoints(world.redis, world.prefix, "leaderboard", version=1)
        await told.subscribe(checkpoints.channel)
        while not told.subscribed:
            await told.get_message(timeout=1)
        await folded(world, *((f"film-{i}", 0) for i in range(10)))
        await folded(world, ("film-1", 0))
        heard = [message["data"] async for message in first(told, 2)]
    assert heard == [b"leaderboard_v1 views 0 10", b"leaderboard_v1 views 0 11"]
    assert await checkpoints.next_offsets([("views", 0), ("videos", 3)]) == {("views", 0): 11, ("videos", 3): 0}


async def first(told: PubSub, messages: int) -> AsyncIterator[dict[str, Any]]:
    async with asyncio.timeout(10):
        while messages:
            if message := await told.get_message(timeout=1):
                messages -= 1
                yield message
