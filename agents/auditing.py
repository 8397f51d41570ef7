"""Boards and aggregates against the log: each is read with the places that it speaks of, and the log is folded anew up to there."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis.asyncio import Redis

from agents.left import Left, left_by
from agents.replaying import Replay
from agents.stores import folded_as
from projections.changes import Change, Increment, singly
from projections.queries.board import Board, read_board
from projections.queries.statistics import BY_NAME, TABLES, start_of
from projections.queries.still import Still
from projections.queries.versions import Version
from projections.sinks.postgres import reaching_postgres
from projections.sinks.redis_keys import shard_of
from projections.sinks.redis_windows import MINUTE
from schemas.log import EPOCH, Place

READ_AT_ONCE = 5_000


class Difference(NamedTuple):
    """What a store holds at one key of a table, and what the log says; None where there is nothing."""

    table: str
    key: str
    held: int | None
    in_log: int | None


class Audit(NamedTuple):
    """What was compared, up to which places of the log, and where they differ. `films` and `views` are those of the widest window."""

    version: str
    films: int
    views: int
    places: list[Place]
    differences: list[Difference]


class Auditing:
    """Every method raises StoreUnavailable when a store or the log cannot be read."""

    def __init__(self, replay: Replay, prefix: str, pool: Any, redis: Redis) -> None:
        self._replay = replay
        self._prefix = prefix
        self._pool = pool
        self._redis = redis

    async def leaderboard(self, version: Version, windows: Sequence[str]) -> Audit:
        """These windows of the board, with the edges that it has."""
        films = views = 0
        places: list[Place] = []
        differing: list[Difference] = []
        for shard, keys in enumerate(version.keys(self._prefix)):
            board = await read_board(self._redis, keys, windows)
            differing += _board_differences(board, await self._still(board, version, shard))
            widest = max(board.windows.values(), key=lambda counted: sum(counted.values()))
            films, views = films + len(widest), views + sum(widest.values())
            places = min(places or board.places, board.places)
        return Audit(version.full_name, films, views, places, differing)

    async def _still(self, board: Board, version: Version, shard: int) -> Still:
        still = Still(board.edges)

        def write(change: Change) -> None:
            for one in singly([change]):
                if shard_of(one.key["video_id"], version.shards) == shard:
                    still.write(one)

        edge = min(board.edges.values())
        occurred_from = EPOCH + edge * MINUTE if edge else None
        spans = await self._replay.spans_to(board.places, occurred_from=occurred_from)
        # Later than the board: what was left since lies behind its places.
        left = await left_by(self._pool, version, board.steps)
        await self._replay.fold(folded_as(version), spans, write, left=left)
        return still

    async def statistics(self, version: Version, timeframe: str) -> Audit:
        """The hours and days from the beginning of a window on."""
        from_ = start_of(BY_NAME[timeframe], datetime.now(UTC))
        held, places, left = await self._aggregates(version, from_)
        counted: dict[str, dict[Any, int]] = {table: {} for table in held}

        def write(change: Change) -> None:
            for one in singly([change]):
                at = one.key["video_id"], one.key["start"]
                if isinstance(one, Increment) and (from_ is None or at[1] >= from_):
                    counted[one.table][at] = counted[one.table].get(at, 0) + one.by

        spans = await self._replay.spans_to(places, occurred_from=from_)
        await self._replay.fold(folded_as(version), spans, write, left=left)
        differing = [d for table in sorted(held) for d in _differences(table, held[table], counted[table])]
        films = {video_id for video_id, _ in held["daily"]}
        return Audit(version.full_name, len(films), sum(held["daily"].values()), places, differing)

    async def _aggregates(
        self, version: Version, from_: datetime | None
    ) -> tuple[dict[str, dict[Any, int]], list[Place], Left]:
        """The rows, the checkpoints, and what was left, as of one moment: they move in one transaction."""
        held: dict[str, dict[Any, int]] = {}
        with reaching_postgres():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                rows = await connection.fetch(
                    "select topic, partition, next_offset from checkpoints where projection = $1 and version = $2 order by 1, 2",
                    version.projection,
                    version.number,
                )
                left = await left_by(connection, version)
                for table in TABLES.values():
                    sql = f"select video_id, start, views from {version.table(table)} where $1::timestamptz is null or start >= $1"
                    cursor = connection.cursor(sql, from_, prefetch=READ_AT_ONCE)
                    held[table] = {(row[0], row[1]): row[2] async for row in cursor}
        return held, [Place(*row) for row in rows], left


def _board_differences(board: Board, still: Still) -> Iterator[Difference]:
    for name, films in board.windows.items():
        yield from _differences(name, films, still.windows[name])
    yield from _differences("deleted", dict.fromkeys(board.deleted, 1), dict.fromkeys(still.deleted, 1))


def _differences(table: str, held: Mapping[Any, int], in_log: Mapping[Any, int]) -> Iterator[Difference]:
    for key in sorted(held.keys() | in_log.keys()):
        if held.get(key, 0) != in_log.get(key, 0):
            yield Difference(table, _named(key), held.get(key), in_log.get(key))


def _named(key: Any) -> str:
    return f"{key[0]} at {key[1]:%F %H}h" if isinstance(key, tuple) else str(key)
