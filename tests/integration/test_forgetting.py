"""After everything was dropped and folded again, no store tells anything of who was forgotten; every total is as it would be without."""

from collections.abc import Iterable
from typing import Any

import pytest

from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.queries.versions import declared
from schemas.streams import streams
from tests.integration.test_replay import WAYS
from tests.logs import PartitionInMemory, log_of_everything
from tests.replay import PLAIN, Log, Replay, Stores, Way, all_declared, open_stores

pytestmark = pytest.mark.usefixtures("postgres", "redis", "elasticsearch")

RECORDS = 600
COUNTING = ("statistics", "leaderboard", "catalogue", "chronicle", "search")
# That they are forgotten has to be known; and what waits for an operator is a piece of the log, which holds the pseudonym for ever.
KNOWING = ("forgotten", "parked", "parking_steps")


async def fold(stores: Stores, log: Log, way: Way) -> None:
    await stores.drop(all_declared())
    await Replay(stores, log, way, all_declared()).fold()


async def forgotten_in(stores: Stores) -> list[str]:
    table = declared("positions").table("positions_forgotten")
    return [row[0] for row in await stores.pool.fetch(f"select viewer_id from {table}")]


async def tables_that_tell(stores: Stores, viewers: Iterable[str]) -> set[str]:
    rows = await stores.pool.fetch("select tablename from pg_tables where schemaname = current_schema()")
    tables = [name for (name,) in rows if "_forgotten_" not in name and name not in KNOWING]
    assert {declared("views").table("views"), declared("positions").table("positions"), "viewers"} <= set(tables)
    found = set()
    for table in tables:
        for viewer_id in viewers:
            if await stores.pool.fetchval(
                f"select count(*) from {table} t where position($1 in t::text) > 0", viewer_id
            ):
                found.add(table)
    return found


async def keys_that_tell(stores: Stores, viewers: Iterable[str]) -> set[str]:
    found = set()
    async for key in stores.redis.scan_iter(match=f"{stores.settings.prefix}*"):
        held = await told_by(stores.redis, key)
        if any(viewer_id in f"{key} {held}" for viewer_id in viewers):
            found.add(key.decode().rpartition(":")[2])
    return found


async def told_by(redis: Any, key: bytes) -> str:
    """A key's whole value."""
    match await redis.type(key):
        case b"hash":
            return str(await redis.hgetall(key))
        case b"set":
            return str(await redis.smembers(key))
        case b"zset":
            return str(await redis.zrange(key, 0, -1))
        case b"list":
            return str(await redis.lrange(key, 0, -1))
        case _:
            return str(await redis.get(key))


async def documents(stores: Stores) -> str:
    indices = f"{stores.settings.prefix}*"
    await stores.elasticsearch.indices.refresh(index=indices)
    return str((await stores.elasticsearch.search(index=indices, size=10_000))["hits"]["hits"])


@pytest.mark.parametrize("way", [PLAIN, WAYS[1]], ids=["in one piece", "in small pieces, cut short"])
async def test_no_store_tells_of_who_is_forgotten_and_every_total_stays(settings: Settings, way: Way) -> None:
    await provision_tables(settings)
    log = log_of_everything(5, RECORDS)
    unasked = {at: PartitionInMemory(at, []) if at.topic == "viewers" else part for at, part in log.items()}
    async with open_stores(settings, "UTC") as stores:
        raw = (
            f"select log_partition, log_offset, view_id, video_id from {declared('views').table('views')} order by 1, 2"
        )
        await fold(stores, unasked, PLAIN)
        before = {name: await stores.dump(declared(name)) for name in COUNTING}
        views_before, named = await stores.pool.fetch(raw), await tables_that_tell(stores, ["viewer-0", "viewer-1"])
        assert len(named) == 2  # else nothing was there to forget
        await fold(stores, log, way)
        forgotten = await forgotten_in(stores)
        assert forgotten
        assert await tables_that_tell(stores, forgotten) == set()
        assert await keys_that_tell(stores, forgotten) == {"forgotten"}
        assert not [viewer_id for viewer_id in forgotten if viewer_id in await documents(stores)]
        assert {name: await stores.dump(declared(name)) for name in COUNTING} == before
        assert await stores.pool.fetch(raw) == views_before
        assert set(streams().projections) - set(COUNTING) == {"views", "positions", "resume"}
