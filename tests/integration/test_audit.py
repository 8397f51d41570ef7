"""A board and aggregates that the log bears out are equal to it wherever they stand; what does not belong there is named."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnected

from agents.auditing import Auditing, Difference
from agents.replaying import Replay
from compose.connections import open_postgres
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.leaderboard import leaderboard
from projections.projection import Projection
from projections.queries.versions import Version
from projections.rule import Rule
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.redis_keys import shards_of
from projections.sinks.redis_layout import Limits
from projections.sinks.redis_windows import NAMES
from projections.sinks.sink import Sink, StoreUnavailable
from projections.statistics import statistics
from schemas.events import Event, VideoDeleted, VideoViewed
from schemas.log import Place
from tests.small_log import SMALL, START, SmallLog, fold

pytestmark = pytest.mark.usefixtures("redis", "postgres")

TINY = Limits(rows=3, leaving=2, worth_packing=1)
SHARDS = 2
quick = hypothesis_settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Breaking(Redis):
    """A client whose connection breaks after so many commands."""

    left = 1_000_000

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise NotConnected("cut off")
        return await super().execute_command(*args, **options)


class World:
    """A log, and a board and aggregates that are folded from it."""

    def __init__(self, settings: Settings, redis: Breaking, pool: Any) -> None:
        self.log = SmallLog()
        self.redis, self.pool, self.prefix = redis, pool, settings.prefix
        self.rule: Rule | None = None
        self.keys = shards_of(settings.prefix, "leaderboard", 1, SHARDS)
        self.board = RedisSink(redis, leaderboard, settings.prefix, shards=SHARDS, limits=TINY)
        self.aggregates = PostgresSink(pool, statistics)

    async def begin(self, rule: Rule | None = None) -> None:
        self.log, self.rule = SmallLog(), rule
        self.redis.left = 1_000_000
        for sink in (self.board, self.aggregates):
            await sink.drop()
            await sink.prepare()
        await self.pool.execute("delete from parked; delete from parking_steps")

    async def fold(self, projection: Projection, sink: Sink, *, share: float = 1.0, is_buggy: bool = False) -> None:
        by_rule = projection.at(1, self.rule)
        await fold(self.log, by_rule, sink, self.pool, share=share, is_buggy=is_buggy)

    async def fold_both(self, *, is_buggy: bool = False) -> None:
        for projection, sink in ((leaderboard, self.board), (statistics, self.aggregates)):
            await self.fold(projection, sink, is_buggy=is_buggy)

    async def differences(self) -> list[Difference]:
        auditing = Auditing(Replay(self.log.open, SMALL), self.prefix, self.pool, self.redis)
        rule = self.rule and self.rule.model_dump(mode="json")
        board = await auditing.leaderboard(Version("leaderboard", 1, 1, SHARDS, "active", rule), NAMES)
        aggregates = await auditing.statistics(Version("statistics", 1, 1, 1, "active", rule), "all_time")
        return [*board.differences, *aggregates.differences]


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    await provision_tables(settings)
    async with open_postgres(settings) as pool:
        redis = Breaking.from_url(settings.redis_url.get_secret_value())
        yield World(settings, redis, pool)
        redis.left = 1_000_000
        await redis.aclose()


some_views = st.lists(
    st.tuples(
        st.sampled_from("abcdefghijkl"), st.integers(0, 6), st.integers(0, 90), st.sampled_from([0, 0, 70, 5_000])
    ),
    min_size=1,
    max_size=40,
)


def append(log: SmallLog, drawn: Sequence[tuple[str, int, int, int]]) -> datetime:
    """Views, and now and then a deletion; returns the last moment."""
    at = START
    for number, (view_id, film, later_minutes, late_minutes) in enumerate(drawn):
        at += timedelta(minutes=later_minutes)
        event: Event = VideoViewed(
            view_id=f"{view_id}-{number % 20}",
            video_id=f"film-{film}",
            occurred_at=at - timedelta(minutes=late_minutes),
            watched_seconds=later_minutes,
        )
        log.append(VideoDeleted(video_id="film-0", occurred_at=at) if film == 6 else event, at)
    return at


@quick
@given(drawn=some_views, share=st.floats(0, 1), breaks_after=st.integers(1, 60), ticks=st.integers(0, 2))
async def test_what_was_folded_equals_the_log_however_far_it_is_and_wherever_a_worker_died(
    world: World, drawn: list[tuple[str, int, int, int]], share: float, breaks_after: int, ticks: int
) -> None:
    await world.begin()
    end = append(world.log, drawn)
    await world.board.tick(START)
    for sink, projection in ((world.board, leaderboard), (world.aggregates, statistics)):
        await world.fold(projection, sink, share=share)
    for _ in range(ticks):
        await world.board.tick(end - timedelta(hours=1))
    world.redis.left = breaks_after
    with suppress(StoreUnavailable):
        await world.fold(leaderboard, world.board)
    world.redis.left = 1_000_000
    assert await world.differences() == []


@quick
@given(
    drawn=some_views,
    decided=st.lists(st.sampled_from(["retry", "discard", None]), min_size=40, max_size=40),
    rule=st.sampled_from([None, Rule(watched_at_least_seconds=30)]),
    marked=st.booleans(),
)
async def test_what_was_parked_retried_or_discarded_equals_the_log_and_so_does_a_version_with_a_rule(
    world: World, drawn: list[tuple[str, int, int, int]], decided: list[Any], rule: Rule | None, marked: bool
) -> None:
    await world.begin(rule)
    await world.board.tick(START)
    append(world.log, drawn[::2])
    await world.fold_both(is_buggy=True)
    assert await world.differences() == []
    for (partition, offset), word in zip(await parked(world), decided, strict=False):
        place = Place("views", partition, offset)
        if word is not None:
            named = ("leaderboard", "statistics")
            await world.log.decide(word, place, "wrong-partition", named, marked=marked)
    append(world.log, drawn[1::2])
    assert await world.differences() == []
    await world.fold_both()
    assert await world.differences() == []


async def parked(world: World) -> list[tuple[int, int]]:
    rows = await world.pool.fetch("select distinct partition, log_offset from parked order by 1, 2")
    return [(row[0], row[1]) for row in rows]


async def test_a_batch_that_a_dead_worker_left_in_its_journal_is_counted(world: World) -> None:
    await world.begin()
    append(world.log, [("abcdefghijkl"[n % 12], n % 5, 1, 0) for n in range(40)])
    await world.board.tick(START)
    left = 30
    while not await world.redis.keys(f"{world.prefix}*journal*"):
        left -= 1
        assert left, "no batch was cut short"
        await world.begin()
        append(world.log, [("abcdefghijkl"[n % 12], n % 5, 1, 0) for n in range(40)])
        await world.board.tick(START)
        world.redis.left = 30 - left
        with pytest.raises(StoreUnavailable):
            await world.fold(leaderboard, world.board)
        world.redis.left = 1_000_000
    await world.fold(statistics, world.aggregates)
    assert await world.differences() == []


async def test_a_board_that_stands_at_an_earlier_time_again_counts_by_that_one(world: World) -> None:
    await world.begin()
    await world.board.tick(START + timedelta(hours=5))
    append(world.log, [("a", 1, 1, 0)])
    await world.fold(leaderboard, world.board)
    await world.begin()
    await world.board.tick(START)
    append(world.log, [("a", 1, 16, 70)])
    await world.fold(leaderboard, world.board)
    await world.fold(statistics, world.aggregates)
    assert await world.differences() == []


async def test_a_wrong_count_is_named_wherever_it_is_planted(world: World) -> None:
    await world.begin()
    append(world.log, [("a", 1, 1, 0), ("b", 1, 1, 0), ("c", 2, 1, 0)])
    await world.board.tick(START)
    await world.fold(leaderboard, world.board)
    await world.fold(statistics, world.aggregates)
    assert await world.differences() == []
    (holder,) = [keys for keys in world.keys if await world.redis.zscore(keys.top("week"), "film-1")]
    await world.redis.zincrby(holder.top("week"), 3, "film-1")
    await world.redis.sadd(holder.deleted, "film-2")
    await world.pool.execute("update hourly_v1 set views = 7 where video_id = 'film-2'")
    assert await world.differences() == [
        Difference("week", "film-1", 5, 2),
        Difference("deleted", "film-2", 1, None),
        Difference("hourly", "film-2 at 2026-02-27 21h", 7, 1),
    ]


async def test_one_that_was_never_ticked_has_nothing_to_prove(world: World) -> None:
    await world.begin()
    with pytest.raises(StoreUnavailable, match="no leaderboard yet"):
        await world.differences()
