"""Views by the hour and by the day, and what the leaderboard falls back to."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from projections.counting import day_start, hour_start
from projections.leaderboard import WINDOWS, Window
from projections.queries.leaderboard import Ranked, Timeframe, Top, Views
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres

Bucket = Literal["hour", "day"]
TABLES: dict[Bucket, str] = {"hour": "hourly", "day": "daily"}
BY_NAME = {window.name: window for window in WINDOWS}


class Point(NamedTuple):
    """The views of one bucket that begins at `start`."""

    start: datetime
    views: int


class Statistics:
    """Reads the aggregates in Postgres. Raises StoreUnavailable when it is down.

    The last hour is counted from the raw views, as the aggregates know no minutes; every other window from the hours or the days it
    consists of.
    """

    def __init__(self, pool: Any, versions: Versions) -> None:
        self._pool = pool
        self._versions = versions

    async def history(
        self, video_id: str, *, from_: datetime | None, to: datetime | None, bucket: Bucket
    ) -> list[Point]:
        """The film's views bucket by bucket, the oldest first; buckets without a view are left out."""
        table = self._versions.active("statistics").table(TABLES[bucket])
        with reaching_postgres():
            rows = await self._pool.fetch(
                f"""
                select start, views from {table}
                where video_id = $1 and ($2::timestamptz is null or start >= $2) and ($3::timestamptz is null or start < $3)
                order by start
                """,
                video_id,
                from_ and bucket_start(from_, bucket),
                to,
            )
        return [Point(*row) for row in rows]

    async def top(self, k: int, timeframe: Timeframe, now: datetime) -> Top:
        """The first `k` films, as the leaderboard would have them at `now`; deleted ones left out."""
        from_ = start_of(BY_NAME[timeframe], now)
        source, query = self._counts(timeframe)
        deleted = self._versions.active("catalogue").table("videos")
        with reaching_postgres():
            rows = await self._pool.fetch(
                f"""
                select c.video_id, c.views from ({query}) c
                left join {deleted} v on v.video_id = c.video_id
                where v.deleted_at is null order by c.views desc, c.video_id collate "C" desc limit $3
                """,
                from_,
                None,
                k,
            )
        items = [Ranked(rank, row["video_id"], row["views"]) for rank, row in enumerate(rows, start=1)]
        return Top(timeframe, from_, now, now, source, items)

    async def views(self, video_id: str, now: datetime) -> Views:
        """The film's views in every window."""
        counts: dict[str, int] = {}
        queries = [(window, self._counts(window.name)[1]) for window in WINDOWS]
        with reaching_postgres():
            async with self._pool.acquire() as connection:
                for window, query in queries:
                    start = start_of(window, now)
                    counts[window.name] = await connection.fetchval(
                        f"select coalesce(sum(views), 0)::bigint from ({query}) c", start, video_id
                    )
        return Views(**counts, as_of=now, source="aggregates")

    def _counts(self, timeframe: str) -> tuple[str, str]:
        """Where a window is counted from, and how: $1 is its start or null, $2 a film or null."""
        window = BY_NAME[timeframe]
        where = "($1::timestamptz is null or {moment} >= $1) and ($2::text is null or video_id = $2)"
        if window.bucket is not None and window.bucket < timedelta(hours=1):
            table = self._versions.active("views").table("views")
            return (
                "raw",
                f"select video_id, count(*) as views from {table} where {where.format(moment='occurred_at')} group by 1",
            )
        hourly = window.bucket is not None and window.bucket < timedelta(days=1)
        table = self._versions.active("statistics").table(TABLES["hour" if hourly else "day"])
        return (
            "aggregates",
            f"select video_id, sum(views)::bigint as views from {table} where {where.format(moment='start')} group by 1",
        )


def bucket_start(moment: datetime, bucket: Bucket) -> datetime:
    """The UTC hour or day that `moment` lies in."""
    return hour_start(moment) if bucket == "hour" else day_start(moment)


def start_of(window: Window, now: datetime) -> datetime | None:
    """Where a window begins at `now`: its buckets lie on whole minutes, hours or days of UTC, and the newest is still open."""
    if window.bucket is None:
        return None
    seconds = int(window.bucket.total_seconds())
    newest = int(now.astimezone(UTC).timestamp()) // seconds
    return datetime.fromtimestamp((newest - window.buckets + 1) * seconds, UTC)
