"""The catalogue's table with rows in it, as the Faust worker would have folded them."""

from datetime import UTC, datetime
from typing import Any

from projections.catalogue import catalogue
from projections.queries.versions import declared
from projections.sinks.postgres import PostgresSink

CATALOGUE = declared(catalogue.name).table("videos")


def source_of(video_id: str) -> str:
    """The key of a film's uploaded bytes."""
    return f"videos/{video_id}/source/token"


class Rows:
    """Films in the catalogue of one test."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def initiate(self, video_id: str, *, at: datetime | None = None) -> None:
        """Announced, its bytes on their way."""
        await self._pool.execute(
            f"insert into {CATALOGUE} (video_id, source_key, initiated_at, stage, status) values ($1, $2, $3, 0, 'PENDING')",
            video_id,
            source_of(video_id),
            at or datetime.now(UTC),
        )

    async def upload(
        self, video_id: str, *, at: datetime | None = None, status: str = "PENDING", stage: int = 0
    ) -> None:
        """All its bytes are there."""
        await self.initiate(video_id, at=at)
        await self._pool.execute(
            f"update {CATALOGUE} set uploaded_at = $2, size = 8, status = $3, stage = $4 where video_id = $1",
            video_id,
            at or datetime.now(UTC),
            status,
            stage,
        )

    async def delete(self, video_id: str) -> None:
        await self._pool.execute(f"update {CATALOGUE} set deleted_at = now() where video_id = $1", video_id)

    async def expire_leases(self) -> None:
        """Time passes, and whoever holds a lease does not renew it."""
        await self._pool.execute("update leases set expires_at = now() - interval '1 second'")

    async def waiting(self) -> bool:
        """Whether a film has no lease yet."""
        found: int = await self._pool.fetchval(
            f"select count(*) from {CATALOGUE} v where not exists (select from leases l where l.video_id = v.video_id)"
        )
        return found > 0


async def open_rows(pool: Any) -> Rows:
    """The tables as the sink makes them, empty."""
    await PostgresSink(pool, catalogue).prepare()
    return Rows(pool)
