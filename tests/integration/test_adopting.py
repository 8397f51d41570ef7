"""A worker folds what the registry says, from the moment it says it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.registry import Registry
from agents.verifying import HEAR_SECONDS
from compose.connections import open_postgres
from compose.settings import Settings
from projections.sinks.postgres import reaching_postgres
from projections.sinks.sink import StoreUnavailable
from schemas.streams import streams
from tests.servers import Servers
from tests.working import Worker, produce, provision_log, settled, until, viewed, working

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(200)]

INSERT = "insert into versions (projection, version, fold, shards, state) values ('statistics', $1, $2, 1, $3)"
FOLD = streams().projections["statistics"].version


@pytest.fixture
def worker(settings: Settings, servers: Servers, tmp_path: Path) -> Iterator[Worker]:
    asyncio.run(provision_log(settings))
    with working(settings, servers, tmp_path) as (worker,):
        yield worker


async def counted(pool: Any, version: int) -> int | None:
    """The views in this version of the statistics; None before there are any."""
    try:
        with reaching_postgres():
            return await pool.fetchval(f"select sum(views)::bigint from daily_v{version}")  # type: ignore[no-any-return]
    except StoreUnavailable:
        return None


async def test_a_version_that_becomes_ready_is_folded_beside_the_active_one_until_it_is_retired(
    settings: Settings, worker: Worker
) -> None:
    await produce(settings, [viewed(f"view-{i}", "film") for i in range(500)])
    await settled(settings, Counter(film=500))
    async with open_postgres(settings, connections=1) as pool:

        async def both_have(views: int) -> bool:
            return [await counted(pool, FOLD), await counted(pool, 9)] == [views, views]

        await pool.execute(INSERT, 9, FOLD, "ready")
        await until(lambda: both_have(500))
        await produce(settings, [viewed("another", "film")])
        await until(lambda: both_have(501))
        await pool.execute("update versions set state = 'retired' where projection = 'statistics' and version = 9")

        async def is_left() -> bool:
            return "no longer reading" in worker.said

        await until(is_left)
        await produce(settings, [viewed("third", "film")])
        await settled(settings, Counter(film=502))
        assert await counted(pool, 9) == 501


async def test_a_version_of_another_fold_is_left_alone_in_words(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    async with open_postgres(settings, connections=1) as pool:
        await pool.execute(INSERT, 1, FOLD + 7, "active")
        with working(settings, servers, tmp_path) as (worker,):
            await produce(settings, [viewed("view", "film")])

            async def said() -> bool:
                return "faust -A agents rebuild statistics" in worker.said

            await until(said)
            await until(lambda: pool.fetchval("select count(*) from checkpoints where projection = 'views'"))
            assert not await pool.fetchval("select count(*) from checkpoints where projection = 'statistics'")


async def test_nobody_folds_what_is_held_until_it_is_let_go(settings: Settings, worker: Worker) -> None:
    await produce(settings, [viewed("first", "film")])
    await settled(settings, Counter(film=1))
    async with open_postgres(settings, connections=3) as pool:
        async with Registry(pool).held("statistics"):
            await asyncio.sleep(HEAR_SECONDS)
            await produce(settings, [viewed("second", "film")])
            await until(lambda: pool.fetchval("select count(*) = 2 from views_v2"))
            assert await counted(pool, FOLD) == 1
        await settled(settings, Counter(film=2))
