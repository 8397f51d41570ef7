"""Views as they had been recorded by a moment, from the raw views in Postgres."""

from datetime import datetime, timedelta
from typing import Any

from projections.counting import CLOCK_SKEW
from projections.leaderboard import WINDOWS
from projections.queries.leaderboard import Ranked, Timeframe, Top, Views
from projections.queries.raw import counted_as
from projections.queries.statistics import BY_NAME, Bucket, Point, bucket_start, start_of
from projections.queries.versions import Version, Versions
from projections.sinks.postgres import reaching_postgres
from schemas.events import VideoDeleted

SETTLED_AFTER = timedelta(
    seconds=1
)  # that a broker's clock may be behind ours: so long something may yet be recorded then
# A view is recorded a minute before it occurred at the earliest: so both ends of what is read are known to the index.
RECORDED_BY = (
    "v.recorded_at <= $1 and ($2::timestamptz is null or (v.occurred_at >= $2 and v.recorded_at >= $2 - $3::interval))"
)
# What was left at its place is there since the decision about it.
DECIDED_LATER = """exists (
    select from parked p where p.projection = '{projection}' and p.version = {version} and p.topic = '{topic}'
    and p.partition = {row}.log_partition and p.log_offset = {row}.log_offset and p.decided_at > {moment}
)"""
TOP = f"""
select v.video_id, count(*) as views from {{views}} v where {RECORDED_BY} and not {{later}}
and not exists (
    select from {{chronicle}} c
    where c.event_type = '{VideoDeleted.type}' and c.video_id = v.video_id and c.recorded_at <= $1 and not {{gone_later}}
)
group by v.video_id order by views desc, v.video_id collate "C" desc limit $4
"""


def decided_later(version: Version, topic: str, *, row: str, moment: str) -> str:
    """A condition: the row `row`, keyed by its place, came of a decision that was recorded after `moment`."""
    return DECIDED_LATER.format(
        projection=version.projection, version=version.number, topic=topic, row=row, moment=moment
    )


class InTheFuture(ValueError):
    """What will be recorded by then, nobody knows."""


def settling_seconds(moment: datetime, now: datetime) -> float:
    """How long until nothing can be recorded at `moment` any more. Raises InTheFuture."""
    if moment > now:
        raise InTheFuture(f"{moment:%F %T} UTC is yet to come")
    return max(0.0, (moment + SETTLED_AFTER - now).total_seconds())


class Past:
    """Counts the views that had been recorded by `moment`, as the leaderboard would have then. Raises StoreUnavailable, and OtherRule where
    the raw views leave out others than the versions do that answer about now.

    What was recorded by then must be folded; what is recorded later changes no answer.
    """

    source = "raw"

    def __init__(self, pool: Any, versions: Versions) -> None:
        self._pool = pool
        self._versions = versions

    async def top(self, k: int, timeframe: Timeframe, moment: datetime) -> Top:
        """The first `k` films of the window that ended then; those that had been deleted are left out."""
        from_ = start_of(BY_NAME[timeframe], moment)
        chronicle = self._versions.active("chronicle")
        sql = TOP.format(
            views=self._views("leaderboard"),
            later=self._later("$1"),
            chronicle=chronicle.table("chronicle"),
            gone_later=decided_later(chronicle, "videos", row="c", moment="$1"),
        )
        with reaching_postgres():
            rows = await self._pool.fetch(sql, moment, from_, CLOCK_SKEW, k)
        items = [Ranked(rank, row["video_id"], row["views"]) for rank, row in enumerate(rows, start=1)]
        return Top(timeframe, from_, moment, moment, self.source, items)

    async def views(self, video_id: str, moment: datetime) -> Views:
        """The film's views in every window that ended then."""
        starts = [start_of(window, moment) for window in WINDOWS]
        counts = ", ".join(
            f"count(*) filter (where ${number}::timestamptz is null or occurred_at >= ${number}) as {window.name}"
            for number, window in enumerate(WINDOWS, start=3)
        )
        sql = f"""
            select {counts} from {self._views("leaderboard")} v
            where video_id = $1 and recorded_at <= $2 and not {self._later("$2")}
        """
        with reaching_postgres():
            row = await self._pool.fetchrow(sql, video_id, moment, *starts)
        return Views(**row, as_of=moment, source=self.source)

    async def history(
        self, video_id: str, moment: datetime, *, from_: datetime | None, to: datetime | None, bucket: Bucket
    ) -> list[Point]:
        """The film's views bucket by bucket, the oldest first; buckets without a view are left out."""
        sql = f"""
            select date_trunc($5, occurred_at, 'UTC') as start, count(*) as views from {self._views("statistics")} v
            where video_id = $1 and recorded_at <= $2 and not {self._later("$2")} and ($3::timestamptz is null or occurred_at >= $3)
            group by 1 having $4::timestamptz is null or date_trunc($5, occurred_at, 'UTC') < $4 order by 1
        """
        with reaching_postgres():
            rows = await self._pool.fetch(sql, video_id, moment, from_ and bucket_start(from_, bucket), to, bucket)
        return [Point(*row) for row in rows]

    def _views(self, projection: str) -> str:
        """As the version counts them that answers about now."""
        return counted_as(self._versions.active("views"), self._versions.active(projection))

    def _later(self, moment: str) -> str:
        return decided_later(self._versions.active("views"), "views", row="v", moment=moment)
