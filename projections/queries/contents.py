"""The whole state of one version of a projection, as plain rows in one order: what two versions, or two replays, are compared by.

What says only how the state came about is left out: checkpoints (`checkpoints` reads those), times of writing, which films of a bucket are
packed, how many shards there are. So the same events give the same rows in every store, whatever the batches were. To be read while nobody
writes; a board, once it was ticked, since its windows hold what they held at its last tick.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

import orjson
from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis

from projections.queries.redis_contents import redis_rows
from projections.queries.rows import Row
from projections.queries.versions import Version
from projections.sinks.elasticsearch import index_name, reaching_elasticsearch
from projections.sinks.postgres import reaching_postgres, tables_of
from schemas.streams import streams

READ_AT_ONCE = 1_000

KEY_COLUMNS = """
select a.attname as name, a.atttypid = 'text'::regtype as is_text
from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = to_regclass($1) and i.indisprimary order by array_position(i.indkey::int2[], a.attnum)
"""


class Difference(NamedTuple):
    """What lies at one key in one state and in the other; None where there is nothing."""

    one: Row | None
    other: Row | None


def contents_of(
    version: Version, prefix: str, pool: Any, redis: Redis, elasticsearch: AsyncElasticsearch
) -> AsyncGenerator[Row, None]:
    """Every row of this version of its projection, ordered by table and key.

    Raises StoreUnavailable while its store is down, or where there is no such version.
    """
    sink = streams().projections[version.projection].sink
    if sink == "redis":
        return redis_rows(redis, version.keys(prefix))
    if sink == "elasticsearch":
        return elasticsearch_rows(elasticsearch, index_name(prefix, version.projection, version.number))
    return postgres_rows(pool, version)


async def postgres_rows(pool: Any, version: Version) -> AsyncGenerator[Row, None]:
    """The rows of each of its tables, all as of one moment."""
    with reaching_postgres():
        async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            for table in sorted(tables_of(version.projection)):
                columns = await connection.fetch(KEY_COLUMNS, version.table(table))
                key = [column["name"] for column in columns]
                # As Python orders texts, whatever the locale of the database.
                order = ", ".join(f'"{name}"' + (' collate "C"' if is_text else "") for name, is_text in columns)
                sql = f"select * from {version.table(table)}" + (f" order by {order}" if order else "")
                async for row in connection.cursor(sql, prefetch=READ_AT_ONCE):
                    values = dict(row)
                    yield Row(table, tuple(values.pop(name) for name in key), values)


async def elasticsearch_rows(client: AsyncElasticsearch, index: str) -> AsyncGenerator[Row, None]:
    """Every document, those of deleted films too."""
    after: list[Any] | None = None
    with reaching_elasticsearch():
        await client.indices.refresh(index=index)
        while True:
            found = await client.search(
                index=index, size=READ_AT_ONCE, sort=[{"video_id": "asc"}], search_after=after, track_total_hits=False
            )
            hits = found["hits"]["hits"]
            for hit in hits:
                yield Row("documents", (hit["_id"],), hit["_source"])
            if len(hits) < READ_AT_ONCE:
                return
            after = hits[-1]["sort"]


def written(row: Row) -> bytes:
    """The row as bytes, the same for the same row: dumps that are equal byte for byte are equal states."""
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z, default=tuple)


async def differences(one: AsyncIterator[Row], other: AsyncIterator[Row]) -> AsyncIterator[Difference]:
    """Where two states differ, row by row; both are read side by side, neither is held."""
    left, right = await anext(one, None), await anext(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[:2] < right[:2]):
            yield Difference(left, None)
            left = await anext(one, None)
        elif left is None or right[:2] < left[:2]:
            yield Difference(None, right)
            right = await anext(other, None)
        else:
            if written(left) != written(right):
                yield Difference(left, right)
            left, right = await anext(one, None), await anext(other, None)
