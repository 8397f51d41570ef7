"""The catalogue as it is read: one film, several, or a page of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from projections.catalogue import PENDING
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres


@dataclass(frozen=True, slots=True)
class Video:
    """A film that is not deleted. `hls_prefix` is where what plays lies; None until something does."""

    video_id: str
    content_type: str | None
    title: str | None
    description: str | None
    show_title: str | None
    season_number: int | None
    episode_number: int | None
    genre: str | None
    release_year: int | None
    rating: str | None
    filename: str | None
    size: int | None
    media_type: str | None
    source_key: str | None
    source_etag: str | None
    status: str
    progress: float
    error: str | None
    hls_prefix: str | None
    duration_seconds: float | None
    width: int | None
    height: int | None
    variants: Sequence[dict[str, Any]]
    thumbnail: str | None
    storyboard: str | None
    initiated_at: datetime | None
    uploaded_at: datetime | None
    completed_at: datetime | None


COLUMNS = [field.name for field in fields(Video)]


def video_of(row: Mapping[str, Any]) -> Video:
    """A row that the catalogue's fold has made, as a film; of some films nothing is known yet but their progress."""
    found = {name: row.get(name) for name in COLUMNS}
    found |= {"status": found["status"] or PENDING, "progress": found["progress"] or 0.0}
    return Video(**found | {"variants": found["variants"] or []})


def newest_first(films: Iterable[Video]) -> list[Video]:
    """Those that are there: a film is there once its bytes are."""
    there = [(film.uploaded_at, film) for film in films if film.uploaded_at is not None]
    by_id = sorted(there, key=lambda item: item[1].video_id)
    return [film for _, film in sorted(by_id, key=lambda item: item[0], reverse=True)]


class Catalogue:
    """Reads films from Postgres. Raises StoreUnavailable when it is down."""

    def __init__(self, pool: Any, versions: Versions) -> None:
        self._pool = pool
        self._versions = versions

    @property
    def _table(self) -> str:
        return self._versions.active("catalogue").table("videos")

    async def find(self, video_id: str) -> Video | None:
        """The film; None when there is none, or it was deleted."""
        return (await self.find_many([video_id])).get(video_id)

    async def find_many(self, video_ids: Iterable[str]) -> dict[str, Video]:
        """Those films that are there, by their id."""
        rows = await self._fetch(self._table, "video_id = any($1::text[]) and deleted_at is null", list(video_ids))
        return {video.video_id: video for video in rows}

    async def is_deleted(self, video_id: str) -> bool:
        """Whether the film was there once and is gone for good."""
        sql = f"select deleted_at is not null from {self._table} where video_id = $1"
        with reaching_postgres():
            return bool(await self._pool.fetchval(sql, video_id))

    async def page(
        self, *, content_type: str | None = None, genre: str | None = None, limit: int, offset: int
    ) -> tuple[int, list[Video]]:
        """How many films are there, and a page of them, the newest first. A film is there once its bytes are."""
        where = """
            uploaded_at is not null and deleted_at is null
            and ($1::text is null or content_type = $1) and ($2::text is null or genre = $2)
        """
        table = self._table
        with reaching_postgres():
            total = await self._pool.fetchval(f"select count(*) from {table} where {where}", content_type, genre)
        newest = "order by uploaded_at desc, video_id limit $3 offset $4"
        return total, await self._fetch(table, f"{where} {newest}", content_type, genre, limit, offset)

    async def _fetch(self, table: str, where: str, *arguments: object) -> list[Video]:
        with reaching_postgres():
            rows = await self._pool.fetch(f"select {', '.join(COLUMNS)} from {table} where {where}", *arguments)
        return [video_of(row) for row in rows]
