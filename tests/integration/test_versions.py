"""The registry of versions: a switch is heard of, and what was known last holds while Postgres is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from compose.connections import open_postgres
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.queries.versions import LOOK_AGAIN_SECONDS, declared, open_versions, read_versions
from projections.sinks.sink import StoreUnavailable

pytestmark = pytest.mark.usefixtures("postgres")

INSERT = "insert into versions (projection, version, fold, shards, state) values ($1, $2, 1, 1, $3)"


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Any]:
    await provision_tables(settings)
    async with open_postgres(settings) as opened:
        yield opened


async def test_a_switch_is_heard_of_before_anybody_looks(pool: Any) -> None:
    await pool.execute(INSERT, "views", 4, "active")
    async with open_versions(pool) as versions:
        assert versions.active("views").number == 4
        taken_seconds: list[float] = []
        for number in range(5, 9):
            changed, began = versions.changed, time.monotonic()
            await pool.execute("update versions set version = $1 where projection = 'views'", number)
            await asyncio.wait_for(changed.wait(), 10)
            taken_seconds.append(time.monotonic() - began)
            assert versions.active("views").number == number
    # Whoever only looked would have been due to at the first one, and would wait a whole look for each other.
    assert min(taken_seconds[1:]) < 0.9 * LOOK_AGAIN_SECONDS


async def test_two_versions_of_a_projection_never_answer_at_once(pool: Any) -> None:
    await pool.execute(INSERT, "views", 1, "active")
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute(INSERT, "views", 2, "active")


async def test_what_was_known_last_holds_while_postgres_is_away(settings: Settings, pool: Any) -> None:
    await pool.execute(INSERT, "views", 4, "active")
    async with open_postgres(settings, connections=1) as other, open_versions(other) as versions:
        async with asyncio.timeout(10):
            while not (listening := [holder._con for holder in other._holders if holder._con]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await pool.execute("select pg_terminate_backend($1)", listening[0].get_server_pid())
        assert versions.active("views").number == 4
        changed = versions.changed
        await pool.execute("update versions set version = 5")
        await asyncio.wait_for(changed.wait(), 10)
        assert versions.active("views").number == 5


async def test_what_is_declared_answers_until_the_registry_can_be_read(settings: Settings) -> None:
    nowhere = type(settings.postgres_dsn)("postgresql://nobody@127.0.0.1:9/nothing")
    async with open_postgres(settings.model_copy(update={"postgres_dsn": nowhere})) as pool:
        async with open_versions(pool) as versions:
            assert versions.active("views") == declared("views")
        with pytest.raises(StoreUnavailable):
            await read_versions(pool)
