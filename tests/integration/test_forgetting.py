"""After everything was dropped and folded again, no store tells anything of who was forgotten; every total is as it would be without."""

import base64
from collections.abc import Iterable
from typing import Any

import pytest

from compose.connections import open_postgres
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.queries.versions import declared
from projections.sinks.postgres import PostgresSink
from projections.views import views
from schemas.events import VideoViewed, ViewerForgotten
from schemas.log import Place
from schemas.streams import streams
from tests.integration.test_replay import WAYS
from tests.logs import PartitionInMemory, log_of_everything
from tests.replay import PLAIN, Log, Replay, Stores, Way, all_declared, open_stores
from tests.small_log import START, SmallLog
from tests.small_log import fold as fold_log

pytestmark = pytest.mark.usefixtures("postgres", "redis", "elasticsearch")

RECORDS = 600
COUNTING = ("statistics", "leaderboard", "catalogue", "chronicle", "search")
KNOWING = "forgotten"  # that they are has to be known


async def fold(stores: Stores, log: Log, way: Way) -> None:
    await stores.drop(all_declared())
    await Replay(stores, log, way, all_declared()).fold()


async def totals(stores: Stores) -> dict[str, list[bytes]]:
    """What is counted and what is known of films, and where what was parked of it lies and why."""
    found = {}
    for name in COUNTING:
        lines = (await stores.dump(declared(name))).split(b"\n")
        # Of what was parked not its bytes, which may have lost a name.
        found[name] = [b", ".join(line.split(b", ")[:4]) if line.startswith(b"('") else line for line in lines]
    return found


async def forgotten_in(stores: Stores) -> list[str]:
    table = declared("positions").table("positions_forgotten")
    return [row[0] for row in await stores.pool.fetch(f"select viewer_id from {table}")]


async def tables_that_tell(stores: Stores, viewers: Iterable[str]) -> set[str]:
    rows = await stores.pool.fetch("select tablename from pg_tables where schemaname = current_schema()")
    tables = [name for (name,) in rows if "_forgotten_" not in name and name != KNOWING]
    assert {"parked", declared("views").table("views"), declared("positions").table("positions"), "viewers"} <= set(
        tables
    )
    found = set()
    for table in tables:
        for viewer_id in viewers:
            if await stores.pool.fetchval(
                f"select count(*) from {table} t where position($1 in t::text) > 0", viewer_id
            ):
                found.add(table)
    # Bytes are written out in hex: these are looked through as they are.
    for table in ("parked", "parking_steps"):
        for row in await stores.pool.fetch(f"select key, value, headers from {table}"):
            pieces = [row["key"], row["value"], *(base64.b64decode(value) for _, value in row["headers"] if value)]
            if any(viewer_id.encode() in (piece or b"") for viewer_id in viewers for piece in pieces):
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
        before = await totals(stores)
        views_before, named = await stores.pool.fetch(raw), await tables_that_tell(stores, ["viewer-0", "viewer-1"])
        assert named == {declared("views").table("views"), declared("positions").table("positions"), "parked"}
        await fold(stores, log, way)
        forgotten = await forgotten_in(stores)
        assert forgotten
        assert await tables_that_tell(stores, forgotten) == set()
        assert await keys_that_tell(stores, forgotten) == {"forgotten"}
        assert not [viewer_id for viewer_id in forgotten if viewer_id in await documents(stores)]
        assert await totals(stores) == before
        assert await stores.pool.fetch(raw) == views_before
        assert set(streams().projections) - set(COUNTING) == {"views", "positions", "resume"}


@pytest.mark.parametrize("marked", [True, False])
async def test_what_was_parked_of_who_is_forgotten_has_no_name_keeps_its_place_and_can_be_retried(
    settings: Settings, marked: bool
) -> None:
    await provision_tables(settings)
    async with open_postgres(settings) as pool:
        log, sink = SmallLog(), PostgresSink(pool, views)
        await sink.prepare()
        for n in range(9):
            seen_by = {"viewer_id": "ann", "session_id": "sofa"}
            log.append(VideoViewed(view_id=f"view-{n}", video_id="heat", occurred_at=START, **seen_by), START)
        await fold_log(log, views, sink, pool, is_buggy=True)
        before = await pool.fetch("select partition, log_offset, reason, value from parked order by 1, 2")
        assert before
        assert all(b"ann" in row["value"] for row in before)

        log.append(ViewerForgotten(viewer_id="ann", occurred_at=START), START)
        await fold_log(log, views, sink, pool)
        late = VideoViewed(view_id="late", video_id="heat", occurred_at=START, viewer_id="ann")
        log.append(late, START, spoilt=True)
        await fold_log(log, views, sink, pool)
        after = await pool.fetch("select partition, log_offset, reason, value from parked order by 1, 2")
        assert len(after) == len(before) + 1
        assert not any(b"ann" in row["value"] for row in after)
        assert {tuple(row)[:3] for row in before} < {tuple(row)[:3] for row in after}
        assert all(b"heat" in row["value"] for row in after)

        for row in before:
            place = Place("views", row["partition"], row["log_offset"])
            await log.decide("retry", place, row["reason"], ["views"], marked=marked)
        await fold_log(log, views, sink, pool)
        rows = await pool.fetch("select viewer_id, session_id from views_v2")
        assert [tuple(row) for row in rows] == [(None, None)] * 9
        assert not any(b"ann" in row["value"] for row in await pool.fetch("select value from parked"))
        assert await pool.fetchval("select count(*) from parking_steps") == 0
