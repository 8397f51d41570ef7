"""Films as they were: the events of their lives up to a moment, folded as the catalogue folds them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from projections.catalogue import catalogue
from projections.queries.catalogue import Video, video_of
from projections.queries.versions import Versions
from projections.sinks.memory import MemorySink
from projections.sinks.postgres import reaching_postgres
from schemas.decoded import Decoded
from schemas.events import EVENTS, UploadAborted, UploadInitiated, VideoDeleted, VideoUploaded
from schemas.log import Place, Recorded
from schemas.upcasters import upcast

# What was left at its place, and what waited behind it, is there since the decision about it.
KNOWN = """
select c.* from {chronicle} c where c.recorded_at <= {moment} and not exists (
    select from parked p where p.projection = 'chronicle' and p.version = {version} and p.topic = 'videos'
    and p.partition = c.log_partition and (p.outcome is null or p.decided_at > {moment})
    and (p.log_offset = c.log_offset or (p.log_offset < c.log_offset and p.key = convert_to(c.video_id, 'UTF8')))
)
"""
EVENTS_OF_FILMS = """
select video_id, event_type, event_id, log_partition, log_offset, recorded_at, data from ({events}) e
where video_id = any($1::text[]) order by log_partition, log_offset
"""
# Which films there were is told by few of their events; what each was is folded from all of its.
FILMS = f"""
with events as ({{events}}), uploaded as (
    select distinct on (video_id) video_id, occurred_at from events
    where event_type = '{VideoUploaded.type}' order by video_id, log_offset desc
), announced as (
    select distinct on (video_id) video_id, data from events
    where event_type = '{UploadInitiated.type}' order by video_id, log_offset desc
)
select u.video_id from uploaded u left join announced a using (video_id)
where not exists (
    select from events g where g.video_id = u.video_id
    and g.event_type in ('{VideoDeleted.type}', '{UploadAborted.type}')
)
and ($2::text is null or a.data ->> 'content_type' = $2) and ($3::text is null or a.data ->> 'genre' = $3)
order by u.occurred_at desc, u.video_id
"""


class Chronicle:
    """Reads films as of `moment` from Postgres. Raises StoreUnavailable when it is down."""

    source = "chronicle"

    def __init__(self, pool: Any, versions: Versions) -> None:
        self._pool = pool
        self._versions = versions

    async def find(self, video_id: str, moment: datetime) -> Video | None:
        """The film; None when there was none, or it had been deleted."""
        return (await self.find_many([video_id], moment)).get(video_id)

    async def find_many(self, video_ids: Iterable[str], moment: datetime) -> dict[str, Video]:
        """Those films that were there, by their id."""
        sql = EVENTS_OF_FILMS.format(events=self._events("$2"))
        with reaching_postgres():
            rows = await self._pool.fetch(sql, list(video_ids), moment)
        sink = MemorySink(catalogue)
        for change in catalogue.fold([_decoded(row) for row in rows]):
            sink.write(change)
        return {row["video_id"]: video_of(row) for row in sink.rows("videos") if row.get("deleted_at") is None}

    async def page(
        self,
        moment: datetime,
        *,
        content_type: str | None = None,
        genre: str | None = None,
        limit: int,
        offset: int,
    ) -> tuple[int, list[Video]]:
        """How many films there were, and a page of them, the newest first."""
        with reaching_postgres():
            rows = await self._pool.fetch(FILMS.format(events=self._events("$1")), moment, content_type, genre)
        ids = [row["video_id"] for row in rows[offset : offset + limit]]
        films = await self.find_many(ids, moment)
        return len(rows), [films[video_id] for video_id in ids]

    def _events(self, moment: str) -> str:
        version = self._versions.active("chronicle")
        return KNOWN.format(chronicle=version.table("chronicle"), version=version.number, moment=moment)


def _decoded(row: Any) -> Decoded:
    # Kept as it was when it was folded: it may be of a version that has a newer one since.
    event_type, data = upcast(row["event_type"], row["data"])
    place = Place("videos", row["log_partition"], row["log_offset"])
    recorded = Recorded(place, round(row["recorded_at"].timestamp() * 1_000), row["event_id"])
    return Decoded(EVENTS[event_type].model_validate(data), recorded)
