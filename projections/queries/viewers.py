"""Everything that is held of one viewer: raw views, positions, and the history made of them."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from projections.queries.positions import ANSWERING
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres

PAGE_ROWS = 1_000  # held at once, and read in one go: no connection is kept while somebody reads slowly
PIECE_BYTES = 64 * 1024

# Each by a key that only grows from page to page; $1 is the viewer, $2 the page's first key but one, or nulls.
VIEWS = """
select v.log_partition, v.log_offset, v.view_id, v.video_id, f.title, v.occurred_at, v.watched_seconds, v.session_id
from {views} v left join {videos} f on f.video_id = v.video_id
where v.viewer_id = $1 and (v.log_partition, v.log_offset) > ($2, $3)
order by v.log_partition, v.log_offset limit $4
"""
POSITIONS = """
select p.video_id, f.title, p.session_id, p.position_seconds, p.duration_seconds, p.completed, p.updated_at, p.moved_at
from {positions} p left join {videos} f on f.video_id = p.video_id
where p.viewer_id = $1 and (p.video_id, p.session_id) > ($2, $3)
order by p.video_id, p.session_id limit $4
"""
HISTORY = f"""
select distinct on (p.video_id) p.video_id, f.title, p.position_seconds,
       coalesce(p.duration_seconds, f.duration_seconds) as duration_seconds, p.completed, p.updated_at
from {{positions}} p left join {{videos}} f on f.video_id = p.video_id
where p.viewer_id = $1 and p.video_id > $2 and p.updated_at is not null
order by p.video_id, {ANSWERING} limit $3
"""

Row = Mapping[str, Any]


class ViewerRecords:
    """Reads what the projections hold of a viewer, page by page. Raises StoreUnavailable when Postgres is down."""

    def __init__(self, pool: Any, versions: Versions) -> None:
        self._pool = pool
        self._versions = versions

    async def exist(self, viewer_id: str) -> bool:
        """Whether anything is held of the viewer."""
        for rows in (self.positions(viewer_id), self.views(viewer_id)):
            async for _ in rows:
                return True
        return False

    def views(self, viewer_id: str) -> AsyncIterator[Row]:
        """The raw views that count, in the order of the log."""
        return self._rows(VIEWS, viewer_id, ("log_partition", "log_offset"), (-1, -1))

    def positions(self, viewer_id: str) -> AsyncIterator[Row]:
        """Where each session stopped in each film."""
        return self._rows(POSITIONS, viewer_id, ("video_id", "session_id"), ("", ""))

    def history(self, viewer_id: str) -> AsyncIterator[Row]:
        """Each film that was begun, as the history shows it."""
        return self._rows(HISTORY, viewer_id, ("video_id",), ("",))

    async def _rows(self, sql: str, viewer_id: str, key: tuple[str, ...], after: tuple[Any, ...]) -> AsyncIterator[Row]:
        tables = {
            table: self._versions.active(projection).table(table)
            for projection, table in (("views", "views"), ("positions", "positions"), ("catalogue", "videos"))
        }
        while True:
            with reaching_postgres():
                page = await self._pool.fetch(sql.format(**tables), viewer_id, *after, PAGE_ROWS)
            for row in page:
                yield row
            if len(page) < PAGE_ROWS:
                return
            after = tuple(page[-1][name] for name in key)


async def export(records: ViewerRecords, viewer_id: str, given_at: datetime | None) -> AsyncGenerator[bytes, None]:
    """All of it as one JSON object, in pieces of some size: what fails early fails before the first."""
    head = {"viewer_id": viewer_id, "given_at": given_at, "exported_at": datetime.now(UTC)}
    piece = bytearray(orjson.dumps(head, option=orjson.OPT_UTC_Z)[:-1])
    for name, rows in (
        ("views", records.views(viewer_id)),
        ("positions", records.positions(viewer_id)),
        ("history", records.history(viewer_id)),
    ):
        piece += f',"{name}":['.encode()
        mark = b"\n"
        async for row in rows:
            piece += mark + orjson.dumps(dict(row), option=orjson.OPT_UTC_Z)
            mark = b",\n"
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        piece += b"]"
    yield bytes(piece + b"}\n")
