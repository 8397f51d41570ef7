"""Rows into Postgres, exactly once; against the same rows from memory, by whatever Postgres takes fastest."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from benchmarks.folding import fold
from benchmarks.pairs import Comparison, Measured, alternate
from benchmarks.positions import append_positions
from benchmarks.system import System
from benchmarks.views import append_views
from projections.queries.versions import Version

VIEWS = 1_000_000
POSITIONS = 300_000
OVER = timedelta(hours=2)
CHUNK = 20_000  # rows of a COPY or an upsert
ONE_BY_ONE = 3_000  # rows that are enough to know the pace of who commits each
VIEW_COLUMNS = (
    *("log_partition", "log_offset", "view_id", "video_id", "viewer_id", "session_id"),
    *("watched_seconds", "occurred_at", "recorded_at"),
)
POSITION_COLUMNS = {
    "viewer_id": "text",
    "video_id": "text",
    "session_id": "text",
    "position_seconds": "double precision",
    "duration_seconds": "double precision",
    "completed": "boolean",
    "updated_at": "timestamptz",
    "moved_at": "timestamptz",
}

Rows = list[tuple[Any, ...]]


async def compare_views(system: System, views: int = VIEWS) -> list[Comparison]:
    """Raw views with the hours and days they add up to, against a COPY of the raw views alone."""
    expected = await append_views(system, views, over=OVER)
    rows: Rows = []

    async def ours() -> Measured:
        raw, sums = await system.begin("views"), await system.begin("statistics")
        try:
            both = await asyncio.gather(fold(system, raw, "views"), fold(system, sums, "views"))
            if not rows:
                rows.extend(await _rows(system, f"views_v{raw.number}", VIEW_COLUMNS))
            per_second, cpu = min(each.per_second for each in both), sum(each.cpu_seconds for each in both)
            return Measured(per_second, cpu, await _wrong(system, raw, sums, expected))
        finally:
            await system.drop(raw)
            await system.drop(sums)

    async def copied() -> Measured:
        return await _into_an_empty(
            system,
            "views",
            rows,
            lambda connection, table, chunk: connection.copy_records_to_table(
                table, records=chunk, columns=VIEW_COLUMNS
            ),
        )

    return await alternate(
        f"rows: {views:,} raw views, hours and days",
        "views/s",
        ours,
        {"COPY of the raw views alone, from memory": copied},
    )


async def compare_positions(system: System, positions: int = POSITIONS) -> list[Comparison]:
    """Positions, each of a session of its own, so that nothing adds up; against an upsert of as many rows at once, and one by one."""
    await append_positions(system, positions)
    rows: Rows = []

    async def ours() -> Measured:
        version = await system.begin("positions")
        try:
            folded = await fold(system, version, "positions")
            there = await _rows(system, f"positions_v{version.number}", tuple(POSITION_COLUMNS))
            rows.extend(there if not rows else [])
            wrong = "" if sorted(there) == sorted(rows) and len(rows) == positions else "other rows than were sent"
            return Measured(folded.per_second, folded.cpu_seconds, wrong)
        finally:
            await system.drop(version)

    def upserted(table: str) -> str:
        arrays = ", ".join(f"${n}::{type_}[]" for n, type_ in enumerate(POSITION_COLUMNS.values(), start=1))
        kept = ", ".join(f"{name} = excluded.{name}" for name in list(POSITION_COLUMNS)[3:])
        return (
            f"insert into {table} as t select * from unnest({arrays}) on conflict (viewer_id, video_id, session_id) "
            f"do update set {kept} where t.updated_at <= excluded.updated_at"
        )

    async def at_once() -> Measured:
        return await _into_an_empty(
            system,
            "positions",
            rows,
            lambda connection, table, chunk: connection.execute(upserted(table), *map(list, zip(*chunk, strict=True))),
        )

    async def one_by_one() -> Measured:
        return await _into_an_empty(
            system,
            "positions",
            rows[:ONE_BY_ONE],
            lambda connection, table, chunk: connection.execute(upserted(table), *map(list, zip(*chunk, strict=True))),
            chunk_rows=1,
        )

    return await alternate(
        f"rows: {positions:,} positions",
        "positions/s",
        ours,
        {"an upsert of unnested arrays, from memory": at_once, "one commit each, from memory": one_by_one},
    )


async def _into_an_empty(
    system: System,
    projection: str,
    rows: Rows,
    write: Callable[[Any, str, Rows], Awaitable[Any]],
    *,
    chunk_rows: int = CHUNK,
) -> Measured:
    """The rows into the projection's own table, with its keys and indexes, over one connection."""
    version = await system.begin(projection)
    table = f"{projection}_v{version.number}"
    try:
        await system.stores.sink(version).prepare()
        async with system.stores.pool.acquire() as connection:
            chunks = [rows[first : first + chunk_rows] for first in range(0, len(rows), chunk_rows)]
            began, cpu = time.monotonic(), time.process_time()
            for chunk in chunks:
                await write(connection, table, chunk)
            seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        there = await system.stores.pool.fetchval(f"select count(*) from {table}")
        return Measured(len(rows) / seconds, cpu, "" if there == len(rows) else f"{there:,} rows of {len(rows):,}")
    finally:
        await system.drop(version)


async def _rows(system: System, table: str, columns: Sequence[str]) -> Rows:
    found = await system.stores.pool.fetch(f"select {', '.join(columns)} from {table}")
    return [tuple(row) for row in found]


async def _wrong(system: System, raw: Version, sums: Version, expected: Counter[str]) -> str:
    for table, counted in (
        (f"views_v{raw.number}", "count(*)"),
        (f"hourly_v{sums.number}", "sum(views)::bigint"),
        (f"daily_v{sums.number}", "sum(views)::bigint"),
    ):
        found = await system.stores.pool.fetch(f"select video_id, {counted} from {table} group by 1")
        if dict(map(tuple, found)) != expected:
            return f"wrong totals in {table}"
    return ""
