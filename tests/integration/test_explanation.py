"""An explanation accounts for every record of a film, and is what the log says."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agents.explaining import in_log, in_store
from agents.left import left_by
from agents.replaying import Replay
from compose.connections import open_postgres, open_redis
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.leaderboard import WINDOWS, leaderboard
from projections.projection import Projection
from projections.queries.explanation import Explanation, Explanations
from projections.queries.versions import Versions
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.sink import Sink
from projections.statistics import statistics
from projections.views import views
from schemas.events import VideoViewed
from tests.small_log import SMALL, START, SmallLog, fold

pytestmark = pytest.mark.usefixtures("redis", "postgres")

FILMS = ("alien", "heat", "ran")
quick = hypothesis_settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class World(NamedTuple):
    """A board, aggregates and raw views, folded from logs that a test makes."""

    pool: Any
    sinks: dict[Projection, Sink]
    explanations: Explanations

    async def begin(self) -> None:
        for sink in self.sinks.values():
            await sink.drop()
            await sink.prepare()
        await self.pool.execute("delete from parked")

    async def explain(self, film: str, timeframe: Any, at: Any) -> Explanation:
        return await self.explanations.explain(film, timeframe, at)


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    await provision_tables(settings)
    async with open_postgres(settings) as pool, open_redis(settings) as redis:
        sinks: dict[Projection, Sink] = {
            views: PostgresSink(pool, views),
            statistics: PostgresSink(pool, statistics),
            leaderboard: RedisSink(redis, leaderboard, settings.prefix),
        }
        yield World(pool, sinks, Explanations(pool, redis, settings.prefix, Versions()))


some_records = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.sampled_from(FILMS),
        st.integers(0, 200),
        st.sampled_from([0, 0, 2, -1, -30, 4_000]),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=30,
)


@quick
@given(drawn=some_records, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)), timeframe=st.sampled_from(WINDOWS))
async def test_every_record_of_a_film_is_accounted_for_and_no_store_contradicts_another(
    world: World, drawn: list[tuple[Any, ...]], shares: tuple[float, float], timeframe: Any
) -> None:
    await world.begin()
    log, at, of_film = SmallLog(), START, Counter[str]()
    for view_id, film, later_minutes, late_minutes, chance in drawn:
        at += timedelta(minutes=later_minutes)
        view = VideoViewed(view_id=view_id, video_id=film, occurred_at=at - timedelta(minutes=late_minutes))
        log.append(view, at, spoilt=chance == 0)
        of_film[film] += 1
    await world.sinks[leaderboard].tick(at)
    for projection, share in ((views, 1.0), (statistics, shares[0]), (leaderboard, shares[1])):
        await fold(log, projection, world.sinks[projection], world.pool, share=share)
    for film in FILMS:
        found = await world.explain(film, "all_time", at)
        assert found.records == of_film[film]
        assert found.records == found.counted + sum(item.views for item in found.refused) + len(found.parked)
        assert [witness.equal for witness in found.witnesses] == [True, True]
        windowed = await world.explain(film, timeframe.name, at)
        assert False not in [witness.equal for witness in windowed.witnesses]
        for explanation in (found, windowed):
            raw = Versions().active("views")
            left = await left_by(world.pool, raw)
            assert await in_log(Replay(log.open, SMALL), explanation, raw, left) == in_store(explanation)


async def test_a_duplicate_names_the_earlier_place_and_a_future_one_by_how_much(world: World) -> None:
    await world.begin()
    log = SmallLog()
    for minute in (0, 5):
        log.append(VideoViewed(view_id="again", video_id="heat", occurred_at=START), START + timedelta(minutes=minute))
    log.append(VideoViewed(view_id="ahead", video_id="heat", occurred_at=START + timedelta(hours=1)), START)
    await fold(log, views, world.sinks[views], world.pool)
    found = await world.explain("heat", "all_time", START)
    assert (found.counted, found.late, found.records) == (1, 0, 3)
    by_reason = {refusals.reason: refusals.examples for refusals in found.refused}
    (again,), (ahead,) = by_reason["duplicate"], by_reason["future"]
    assert (again["view_id"], again["earlier_place"].offset) == ("again", again["place"].offset - 1)
    assert (ahead["view_id"], ahead["ahead_seconds"]) == ("ahead", 3_600)


async def test_a_store_that_says_otherwise_is_named_and_one_that_cannot_be_asked_says_why(world: World) -> None:
    await world.begin()
    log = SmallLog()
    log.append(VideoViewed(view_id="a", video_id="heat", occurred_at=START), START)
    for projection in (views, statistics):
        await fold(log, projection, world.sinks[projection], world.pool)
    await world.pool.execute("update daily_v1 set views = 5")
    board, aggregates = (await world.explain("heat", "all_time", START)).witnesses
    assert (aggregates.views, aggregates.raw, aggregates.equal) == (5, 1, False)
    assert board.equal is None
    assert "no leaderboard yet" in str(board.why)
    await world.pool.execute("update checkpoints set next_offset = next_offset + 1 where projection = 'statistics'")
    aggregates = (await world.explain("heat", "all_time", START)).witnesses[1]
    assert aggregates.equal is None
    assert "the raw views are behind on views/" in str(aggregates.why)
