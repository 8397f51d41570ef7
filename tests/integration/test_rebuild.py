"""Projections are folded anew, beside what answers, and take its place."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.rebuilding import Progress, Rebuilding, Stopped
from agents.registry import NotNow, Registry, register_declared
from agents.stores import Stores, open_stores
from agents.switching import Switching
from compose.settings import Settings
from projections.queries.versions import Version
from projections.statistics import statistics
from schemas.streams import streams
from tests.servers import Servers
from tests.working import command, produce, producing, provision_log, settled, until, viewed, working

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(300)]

OLD, NEW = statistics.version, statistics.version + 1


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    await provision_log(settings)
    async with open_stores(settings) as opened:
        await register_declared(opened.pool, streams())
        yield opened


async def views_in(stores: Stores, version: int) -> int:
    found: int = await stores.pool.fetchval(f"select coalesce(sum(views), 0)::bigint from daily_v{version}")
    return found


async def begun(stores: Stores, projection: str = "statistics") -> Version:
    return await Registry(stores.pool).begin(projection, streams().projections[projection])


def building(settings: Settings, stores: Stores, version: Version, *, rate: int = 0, workers: int = 1) -> Rebuilding:
    return Rebuilding(settings, stores, version, workers=workers, rate=rate)


def unseen(progress: Progress) -> None:
    """Nobody looks."""


async def test_a_rebuilt_version_takes_the_place_of_the_other_and_gives_it_back(
    settings: Settings, servers: Servers, tmp_path: Path, stores: Stores
) -> None:
    await produce(settings, [viewed(f"view-{i % 900}", f"film-{i % 7}") for i in range(1_000)])
    with working(settings, servers, tmp_path) as (worker,):
        await settled(settings, Counter(f"film-{i % 7}" for i in range(900)))
        assert f"version {NEW} is ready" in await command(settings, servers, "rebuild", "statistics", "--workers", "2")
        assert await views_in(stores, NEW) == await views_in(stores, OLD) == 900
        switching = Switching(stores)
        assert await switching.switch("statistics") == ("statistics", OLD, NEW)
        # What comes now is folded into both, so that there is no gap to go back over.
        await produce(settings, [viewed("another", "film-1")])

        async def both_have_it() -> bool:
            return [await views_in(stores, version) for version in (OLD, NEW)] == [901, 901]

        await until(both_have_it)
        assert await switching.rollback("statistics") == ("statistics", NEW, OLD)
        assert worker.process.poll() is None


async def test_only_what_does_not_answer_is_dropped_and_then_there_is_nothing_to_go_back_to(
    settings: Settings, servers: Servers, stores: Stores
) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(50)])
    switching = Switching(stores)
    with pytest.raises(NotNow, match="rebuild statistics"):
        await switching.switch("statistics")
    assert await building(settings, stores, await begun(stores)).run(unseen)
    await switching.switch("statistics")
    with pytest.raises(NotNow, match=f"version {NEW} answers"):
        await switching.retire("statistics", NEW)
    said = await command(settings, servers, "retire", "all")
    assert f"statistics version {OLD} is dropped" in said
    assert "no projection has" in await command(settings, servers, "retire", "all")
    assert await stores.pool.fetchval("select to_regclass($1)", f"daily_v{OLD}") is None
    assert not await stores.pool.fetchval("select count(*) from checkpoints where version = $1", OLD)
    with pytest.raises(NotNow, match="nothing to go back to"):
        await switching.rollback("statistics")
    assert (await begun(stores)).number == NEW + 1


async def test_what_another_rule_made_answers_only_when_it_is_named(settings: Settings, stores: Stores) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(50)])
    rule = {"watched_at_least_seconds": 30.0, "without_viewers": []}
    supposed = await Registry(stores.pool).begin("statistics", streams().projections["statistics"], rule)
    assert await building(settings, stores, supposed).run(unseen)
    switching = Switching(stores)
    with pytest.raises(NotNow, match=f"another rule; .* --version {supposed.number}"):
        await switching.switch("statistics")
    assert await building(settings, stores, await begun(stores)).run(unseen)
    assert (await switching.switch("statistics")).now == supposed.number + 1
    assert (await switching.switch("statistics", supposed.number)).now == supposed.number


async def test_who_is_behind_does_not_answer(settings: Settings, stores: Stores) -> None:
    await produce(settings, [viewed("view", "film")])
    assert await building(settings, stores, await begun(stores)).run(unseen)
    await stores.pool.execute(
        """
        insert into checkpoints (projection, version, topic, partition, next_offset, cluster_id, topic_id, partitions)
        values ('statistics', $1, 'views', 3, 1000, '', '', 12)
        """,
        OLD,
    )
    with pytest.raises(NotNow, match="is behind version 1 at views/3"):
        await Switching(stores, catch_up_seconds=0.3).switch("statistics")


async def test_a_rebuild_is_paused_and_goes_on_and_no_second_one_begins_meanwhile(
    settings: Settings, stores: Stores
) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(400)])
    version, registry = await begun(stores), Registry(stores.pool)
    slow = asyncio.create_task(building(settings, stores, version, rate=40).run(unseen))
    await until(lambda: stores.pool.fetchval("select sum(next_offset) > 0 from checkpoints where version = $1", NEW))
    with pytest.raises(NotNow, match="is being built already"):
        await begun(stores)
    with pytest.raises(NotNow, match="by another process"):
        await building(settings, stores, version).run(unseen)
    await registry.pause(version, True)
    assert not await slow
    assert 0 < await views_in(stores, NEW) < 400
    told: list[Progress] = []
    assert await building(settings, stores, version).run(told.append)
    assert (told[-1].folded, told[-1].events) == (400, 400)
    assert await views_in(stores, NEW) == 400


async def test_a_record_that_only_the_new_fold_cannot_read_stops_the_rebuild_in_words(
    settings: Settings, stores: Stores
) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(100)])
    async with producing(settings) as producer:
        await producer.send_and_wait(settings.named("views"), b"no json", b"key", partition=3)
    # The version that answers has passed all of it and parked nothing.
    await stores.pool.execute(
        """
        insert into checkpoints (projection, version, topic, partition, next_offset, cluster_id, topic_id, partitions)
        select 'statistics', $1, 'views', number, 1000, '', '', 12 from generate_series(0, 11) as number
        """,
        OLD,
    )
    version = await begun(stores)
    with pytest.raises(Stopped, match=r"views/3 at .* cannot be folded .*undecodable.*agents resume statistics"):
        await building(settings, stores, version).run(unseen)
    # Once it is known, the rebuild passes it as the version that answers has.
    await stores.pool.execute(
        """
        insert into parked (projection, version, topic, partition, log_offset, recorded_at, headers, reason, detail)
        select 'statistics', $1, 'views', 3, number, now(), '[]', 'undecodable', '' from generate_series(0, 99) as number
        """,
        OLD,
    )
    assert await building(settings, stores, version).run(unseen)
    assert await views_in(stores, NEW) == 100
    assert await stores.pool.fetchval("select count(*) from parked where version = $1", NEW) == 1


async def test_a_version_that_is_being_built_can_be_given_up(settings: Settings, stores: Stores) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(400)])
    slow = asyncio.create_task(building(settings, stores, await begun(stores, "leaderboard"), rate=20).run(unseen))
    await until(lambda: stores.redis.exists(f"{settings.prefix}{{leaderboard.v2.s0}}:checkpoints"))
    assert (await Switching(stores).retire("leaderboard")).number == 2
    assert not await slow
    assert not [key async for key in stores.redis.scan_iter(match=f"{settings.prefix}{{leaderboard.v2.s0}}:*")]
