"""Where a viewer stopped, what to go on watching, and what was seen to the end."""

from datetime import datetime
from typing import Any, NamedTuple

from projections.queries.resume import Stopped
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres

# The session that moved last answers, with its newest position; where none has moved, the one with the newest position.
ANSWERING = 'moved_at desc nulls last, updated_at desc, session_id collate "C" desc'


class Watched(NamedTuple):
    """A film that the viewer has begun."""

    video_id: str
    position_seconds: float
    duration_seconds: float | None
    completed: bool
    updated_at: datetime


class Positions:
    """Reads positions from Postgres. Raises StoreUnavailable when it is down."""

    source = "postgres"

    def __init__(self, pool: Any, versions: Versions) -> None:
        self._pool = pool
        self._versions = versions

    async def position(self, viewer_id: str, video_id: str) -> Stopped | None:
        """None when the viewer never watched the film."""
        table = self._versions.active("positions").table("positions")
        with reaching_postgres():
            row = await self._pool.fetchrow(
                f"""
                select session_id, position_seconds, duration_seconds, completed, updated_at from {table}
                where viewer_id = $1 and video_id = $2 and updated_at is not null order by {ANSWERING} limit 1
                """,
                viewer_id,
                video_id,
            )
        return row and Stopped(*row)

    async def continue_watching(self, viewer_id: str, limit: int) -> list[Watched]:
        """Films begun and not seen to the end, the newest first; deleted ones are left out."""
        return await self._watched(viewer_id, completed=False, limit=limit)

    async def completed(self, viewer_id: str, limit: int) -> list[Watched]:
        """Films seen to the end, the newest first; deleted ones are left out."""
        return await self._watched(viewer_id, completed=True, limit=limit)

    async def _watched(self, viewer_id: str, *, completed: bool, limit: int) -> list[Watched]:
        positions = self._versions.active("positions").table("positions")
        videos = self._versions.active("catalogue").table("videos")
        with reaching_postgres():
            rows = await self._pool.fetch(
                f"""
                select video_id, position_seconds, duration_seconds, completed, updated_at from (
                    select distinct on (p.video_id) p.video_id, p.position_seconds, p.completed, p.updated_at,
                           coalesce(p.duration_seconds, v.duration_seconds) as duration_seconds
                    from {positions} p join {videos} v on v.video_id = p.video_id
                    where p.viewer_id = $1 and p.updated_at is not null and v.deleted_at is null
                    order by p.video_id, {ANSWERING}
                ) answering
                where completed = $2 and (completed or position_seconds > 0) order by updated_at desc, video_id limit $3
                """,
                viewer_id,
                completed,
                limit,
            )
        return [Watched(*row) for row in rows]
