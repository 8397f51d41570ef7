"""What a film's number is made of: each view that counts, each that does not and why, and whether every store says the same."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from redis.asyncio import Redis

from projections.queries.leaderboard import Timeframe
from projections.queries.raw import OtherRule, counted_as
from projections.queries.statistics import BY_NAME, TABLES, start_of
from projections.queries.versions import Version, Versions
from projections.sinks.postgres import reaching_postgres
from projections.sinks.redis_keys import shard_of
from projections.sinks.redis_scripts import reaching_redis
from projections.sinks.redis_windows import ROLLING
from projections.sinks.sink import StoreUnavailable
from schemas.log import Place
from schemas.streams import DECISIONS

LATE_AFTER = timedelta(minutes=1)
EXAMPLES = 5
TRIES, LOOK_AGAIN_SECONDS = 20, 0.05  # for a batch that is on its way to the board just then
TOPIC = "views"

Offsets = Mapping[int, int]
"""By partition of `views` the first offset that is not folded yet."""

STRETCHES = """
select log_partition, count(*) as views, count(*) filter (where recorded_at > occurred_at + $3::interval) as late,
       min(log_offset) as first, max(log_offset) as last
from {views} where video_id = $1 and ($2::timestamptz is null or occurred_at >= $2) group by 1 order by 1
"""
REFUSED = """
select reason, count(*) as views from {refused}
where video_id = $1 and ($2::timestamptz is null or occurred_at >= $2) group by 1 order by 1
"""
REFUSED_EXAMPLES = """
select view_id, log_partition, log_offset, earlier_offset, ahead_seconds, occurred_at, recorded_at from {refused}
where video_id = $1 and ($2::timestamptz is null or occurred_at >= $2) and reason = $3
order by recorded_at desc, log_partition, log_offset limit $4
"""
# A record that cannot be read says of no film that it is its own: that its bytes hold the id is the best that can be known. One that
# was parked and has been folded since is counted, or refused, with the others. A mark without effect is no record of a film.
PARKED = """
select partition, log_offset, case outcome when 'discarded' then outcome else reason end as reason, detail from parked p
where projection = $1 and version = $2 and topic = $3 and position(convert_to($4, 'UTF8') in coalesce(value, ''::bytea)) > 0
and mark is distinct from log_offset
and not exists (select from {views} v where (v.log_partition, v.log_offset) = (p.partition, p.log_offset))
and not exists (select from {refused} r where (r.log_partition, r.log_offset) = (p.partition, p.log_offset))
order by partition, log_offset
"""
UP_TO = """
select count(*) from {counted} v join unnest($3::int[], $4::bigint[]) as e (partition, next_offset) on v.log_partition = e.partition
where v.log_offset < e.next_offset and v.video_id = $1 and ($2::timestamptz is null or v.occurred_at >= $2)
and not exists (
    select from parked p where p.projection = $5 and p.version = $6 and p.topic = $7
    and (p.partition, p.log_offset) = (v.log_partition, v.log_offset)
    and case when p.mark is null then p.decided_by >= $8 else p.mark >= e.next_offset end
)
"""
CHECKPOINTS = """
select partition, next_offset from checkpoints where projection = $1 and version = $2 and topic = $3 order by 1
"""


class Refusals(NamedTuple):
    """Views that do not count for one reason, and the newest of them."""

    reason: str
    views: int
    examples: list[dict[str, Any]]


class Stretch(NamedTuple):
    """Where on one partition the views lie that count."""

    partition: int
    views: int
    late: int
    first_offset: int
    last_offset: int


class Witness(NamedTuple):
    """What another store says, and the raw views up to where it is. Where that cannot be told `equal` is None, and `why` tells."""

    source: str
    views: int | None
    raw: int | None
    equal: bool | None
    why: str | None = None


class Explanation(NamedTuple):
    """`late` of the `counted` were recorded over a minute after they occurred. `records` are all: counted, refused and parked.

    Decisions about parked records have been carried out before the offset `decided_to`.
    """

    video_id: str
    timeframe: Timeframe
    from_: datetime | None
    as_of: datetime
    counted: int
    late: int
    refused: list[Refusals]
    parked: list[dict[str, Any]]
    records: int
    stretches: list[Stretch]
    positions: Offsets
    decided_to: int
    witnesses: list[Witness]


class OnBoard(NamedTuple):
    """A film's views in a window of the board that begins at `from_`, up to these offsets, and decisions before `decided_to`."""

    views: int
    from_: datetime | None
    offsets: Offsets
    decided_to: int


class Explanations:
    """Reads the raw views, those refused, the aggregates and the board. Raises StoreUnavailable when Postgres is down."""

    def __init__(self, pool: Any, redis: Redis, prefix: str, versions: Versions) -> None:
        self._pool = pool
        self._redis = redis
        self._prefix = prefix
        self._versions = versions

    async def explain(self, video_id: str, timeframe: Timeframe, now: datetime) -> Explanation:
        """All from one moment of Postgres; the board as it was just before."""
        board: OnBoard | str
        try:
            board = await self._on_board(video_id, timeframe)
            from_ = board.from_
        except StoreUnavailable as unavailable:
            board, from_ = str(unavailable), start_of(BY_NAME[timeframe], now)
        raw = self._versions.active("views")
        with reaching_postgres():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                read = _Reading(connection, raw, video_id, from_)
                stretches = await read.stretches()
                refused, parked = await read.refused(), await read.parked()
                positions, decided_to = await read.offsets(raw), await read.decided_to(raw)
                witnesses = [
                    await read.on_board(self._versions.active("leaderboard"), board),
                    await read.in_aggregates(self._versions.active("statistics"), timeframe),
                ]
        counted = sum(stretch.views for stretch in stretches)
        records = counted + sum(refusals.views for refusals in refused) + len(parked)
        late = sum(stretch.late for stretch in stretches)
        return Explanation(
            video_id,
            timeframe,
            from_,
            now,
            counted,
            late,
            refused,
            parked,
            records,
            stretches,
            positions,
            decided_to,
            witnesses,
        )

    async def _on_board(self, video_id: str, timeframe: Timeframe) -> OnBoard:
        version = self._versions.active("leaderboard")
        keys = version.keys(self._prefix)[shard_of(video_id, version.shards)]
        for _ in range(TRIES):
            with reaching_redis():
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.hgetall(keys.state)
                    pipeline.hgetall(keys.checkpoints)
                    pipeline.zscore(keys.top(timeframe), video_id)
                    state, checkpoints, score = await pipeline.execute()
            if b"ticked_ms" not in state:
                raise StoreUnavailable("redis", "it holds no leaderboard yet: a worker makes it")
            offsets = {name.decode(): value for name, value in checkpoints.items() if b":" not in name}
            if f"leaving:{timeframe}".encode() not in state and not any(b">" in value for value in offsets.values()):
                at = {int(n): int(v) for (topic, _, n), v in _parted(offsets) if topic == TOPIC}
                decided_to = int(offsets.get(f"{DECISIONS}/0", 0))
                return OnBoard(int(score or 0), _edge(state, timeframe), at, decided_to)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        raise StoreUnavailable("redis", "a batch, or a bucket that leaves, is on its way just now: ask again")


class _Reading:
    """One film in one window, within one transaction."""

    def __init__(self, connection: Any, raw: Version, video_id: str, from_: datetime | None) -> None:
        self._connection = connection
        self._raw = raw
        self._film = video_id, from_
        self._tables = {"views": raw.table("views"), "refused": raw.table("refused_views")}

    async def stretches(self) -> list[Stretch]:
        rows = await self._connection.fetch(STRETCHES.format(**self._tables), *self._film, LATE_AFTER)
        return [Stretch(*row) for row in rows]

    async def refused(self) -> list[Refusals]:
        found = []
        for reason, views in await self._connection.fetch(REFUSED.format(**self._tables), *self._film):
            rows = await self._connection.fetch(REFUSED_EXAMPLES.format(**self._tables), *self._film, reason, EXAMPLES)
            found.append(Refusals(reason, views, [_example(row) for row in rows]))
        return found

    async def parked(self) -> list[dict[str, Any]]:
        video_id, _ = self._film
        sql = PARKED.format(**self._tables)
        rows = await self._connection.fetch(sql, self._raw.projection, self._raw.number, TOPIC, video_id)
        return [
            {
                "place": Place(TOPIC, row["partition"], row["log_offset"]),
                "reason": row["reason"],
                "detail": row["detail"],
            }
            for row in rows
        ]

    async def offsets(self, version: Version, topic: str = TOPIC) -> dict[int, int]:
        rows = await self._connection.fetch(CHECKPOINTS, version.projection, version.number, topic)
        return {row["partition"]: row["next_offset"] for row in rows}

    async def decided_to(self, version: Version) -> int:
        return (await self.offsets(version, DECISIONS)).get(0, 0)

    async def on_board(self, version: Version, board: OnBoard | str) -> Witness:
        if isinstance(board, str):
            return Witness("leaderboard", None, None, None, board)
        return await self._compared("leaderboard", version, board.views, board.offsets, board.decided_to)

    async def in_aggregates(self, version: Version, timeframe: Timeframe) -> Witness:
        video_id, from_ = self._film
        bucket = BY_NAME[timeframe].bucket
        if bucket is not None and bucket < timedelta(hours=1):
            return Witness("aggregates", None, None, None, "the aggregates know no minutes")
        table = version.table(TABLES["hour" if bucket == timedelta(hours=1) else "day"])
        views = await self._connection.fetchval(
            f"select coalesce(sum(views), 0)::bigint from {table} where video_id = $1 and ($2::timestamptz is null or start >= $2)",
            video_id,
            from_,
        )
        offsets, decided_to = await self.offsets(version), await self.decided_to(version)
        return await self._compared("aggregates", version, views, offsets, decided_to)

    async def _compared(self, source: str, other: Version, views: int, offsets: Offsets, decided_to: int) -> Witness:
        """Up to where the other store is: the raw views have to be there too. They count as that one counts them."""
        positions = await self.offsets(self._raw)
        behind = [f"{TOPIC}/{at}" for at, offset in sorted(offsets.items()) if positions.get(at, 0) < offset]
        if await self.decided_to(self._raw) < decided_to:
            behind.append(f"{DECISIONS}/0")
        if behind:
            return Witness(source, views, None, None, f"the raw views are behind on {', '.join(behind)}")
        try:
            sql = UP_TO.format(counted=counted_as(self._raw, other))
        except OtherRule as other_rule:
            return Witness(source, views, None, None, str(other_rule))
        up_to = list(offsets), list(offsets.values())
        left = self._raw.projection, self._raw.number, TOPIC, decided_to
        raw = await self._connection.fetchval(sql, *self._film, *up_to, *left)
        return Witness(source, views, raw, raw == views)


def _example(row: Any) -> dict[str, Any]:
    partition = row["log_partition"]
    told = {"view_id": row["view_id"], "place": Place(TOPIC, partition, row["log_offset"])}
    if row["earlier_offset"] is not None:
        told["earlier_place"] = Place(TOPIC, partition, row["earlier_offset"])
    if row["ahead_seconds"] is not None:
        told["ahead_seconds"] = row["ahead_seconds"]
    return {**told, "occurred_at": row["occurred_at"], "recorded_at": row["recorded_at"]}


def _parted(offsets: Mapping[str, bytes]) -> list[tuple[tuple[str, str, str], bytes]]:
    return [(place.partition("/"), value) for place, value in offsets.items()]


def _edge(state: Mapping[bytes, bytes], timeframe: str) -> datetime | None:
    for window in ROLLING:
        if window.name == timeframe:
            return window.start(int(state[f"edge:{timeframe}".encode()]))
    return None
