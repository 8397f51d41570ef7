"""Who works on which film: leases in Postgres, found by what the catalogue shows, fenced by a claim number that only grows."""

from enum import Enum
from typing import Any, NamedTuple

from projections.catalogue import Stage
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres

UPLOAD_LIFETIME = "7 days 1 hour"  # a ticket lives seven days; an hour for clocks that differ


class Work(Enum):
    """Kinds of work, each with the films that wait for it."""

    TRANSCODE = (
        "transcode",
        (
            "v.status in ('PENDING', 'PROCESSING') and v.uploaded_at is not null and v.deleted_at is null",
            "v.uploaded_at",
        ),
    )
    DELETE = "delete", ("v.deleted_at is not null", "v.deleted_at")
    SETTLE = (
        "settle",
        (
            f"v.uploaded_at is null and v.deleted_at is null and v.initiated_at < now() - interval '{UPLOAD_LIFETIME}'",
            "v.initiated_at",
        ),
    )

    def __init__(self, kind: str, waiting: tuple[str, str]) -> None:
        self.kind = kind
        self.waits, self.since = waiting


class Job(NamedTuple):
    """A claimed piece of work. `attempts` counts this claim and those before it whose worker died."""

    work: Work
    video_id: str
    claim: int
    attempts: int
    source_key: str
    size: int


class Hold(Enum):
    """What a worker still has of its claim."""

    HELD = "held"
    LOST = "another worker has claimed it"
    DELETED = "the film was deleted"


class ClaimLost(Exception):
    """The job is no longer ours to finish; `hold` says why."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(hold.value)
        self.hold = hold


class Leases:
    """The claims of one worker. Raises StoreUnavailable when Postgres cannot answer just now."""

    def __init__(self, pool: Any, versions: Versions, worker: str, lease_seconds: float) -> None:
        self._pool = pool
        self._versions = versions
        self._worker = worker
        self._seconds = lease_seconds

    async def claim(self, work: Work) -> Job | None:
        """The piece of work that has waited longest, now ours; None when there is none, or another worker was faster."""
        # The claim also passes that of the catalogue, should this table ever be lost: it takes no older claim's word.
        row = await self._row(
            f"""
            with waiting as (
                select v.video_id, v.source_key, coalesce(v.size, 0) as size,
                       greatest(coalesce(l.claim, 0), (coalesce(v.stage, 1) - 1) / {len(Stage)}) + 1 as claim
                from {self._films} v left join leases l on l.video_id = v.video_id and l.work = $1
                where {work.waits} and (l.claim is null or (l.finished_at is null and l.expires_at < now()))
                order by coalesce(l.attempts, 0), {work.since}
                limit 1
                for update of v skip locked
            ), claimed as (
                insert into leases as l (work, video_id, claim, worker, expires_at, attempts)
                select $1, video_id, claim, $2, now() + $3 * interval '1 second', 1 from waiting
                on conflict (work, video_id) do update
                set claim = greatest(l.claim + 1, excluded.claim), worker = excluded.worker,
                    expires_at = excluded.expires_at, attempts = l.attempts + 1
                where l.finished_at is null and l.expires_at < now()
                returning l.video_id, l.claim, l.attempts
            )
            select video_id, c.claim, attempts, source_key, size from claimed c join waiting using (video_id)
            """,
            work.kind,
            self._worker,
            self._seconds,
        )
        return Job(work, *row) if row else None

    async def renew(self, job: Job) -> Hold:
        """Keep the claim for another lease; says so when it is lost, or when the film was deleted meanwhile."""
        row = await self._row(
            f"""
            update leases l set expires_at = now() + $4 * interval '1 second'
            where work = $1 and video_id = $2 and claim = $3 and finished_at is null
            returning (select deleted_at is not null from {self._films} v where v.video_id = l.video_id) as deleted
            """,
            job.work.kind,
            job.video_id,
            job.claim,
            self._seconds,
        )
        if row is None:
            return Hold.LOST
        return Hold.DELETED if row["deleted"] and job.work is not Work.DELETE else Hold.HELD

    async def finish(self, job: Job) -> None:
        """The work is done for good."""
        await self._row(
            "update leases set finished_at = now() where work = $1 and video_id = $2 and claim = $3",
            job.work.kind,
            job.video_id,
            job.claim,
        )

    async def give_back(self, job: Job, *, after_seconds: float = 0) -> None:
        """Anyone may claim it again after so long; this claim counts as no attempt."""
        await self._row(
            """
            update leases set expires_at = now() + ($4 - 0.001) * interval '1 second', attempts = attempts - 1
            where work = $1 and video_id = $2 and claim = $3 and finished_at is null
            """,
            job.work.kind,
            job.video_id,
            job.claim,
            after_seconds,
        )

    @property
    def _films(self) -> str:
        return self._versions.active("catalogue").table("videos")

    async def _row(self, sql: str, *values: Any) -> Any:
        with reaching_postgres():
            return await self._pool.fetchrow(sql, *values)
