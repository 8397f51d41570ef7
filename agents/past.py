"""What the system would have answered at a moment: the records that were in the log by then, folded in memory."""

from collections.abc import Callable
from datetime import datetime

from agents.replaying import Replay
from agents.stores import folded_as
from projections.catalogue import catalogue
from projections.changes import Change, singly
from projections.leaderboard import WINDOWS
from projections.queries.catalogue import Video, video_of
from projections.queries.leaderboard import Timeframe, Top, Views
from projections.queries.statistics import TABLES, Bucket, Point, start_of
from projections.queries.still import Still, edges_at
from projections.queries.versions import Versions
from projections.sinks.memory import MemorySink
from projections.statistics import statistics

BY_NAME = {window.name: window for window in WINDOWS}


class Past:
    """Answers as of `moment`, from the log alone: asked again next year, the same, as long as the rules of the versions that answer are."""

    def __init__(self, replay: Replay, moment: datetime, versions: Versions) -> None:
        self._replay = replay
        self._moment = moment
        self._versions = versions

    async def top(self, k: int, timeframe: Timeframe) -> Top:
        """The first films of a window that ended then."""
        edges: dict[str, int] = {timeframe: edges_at(self._moment)[timeframe]}
        still = await self._still(edges, start_of(BY_NAME[timeframe], self._moment))
        return still.top(k, timeframe, self._moment)

    async def views(self, video_id: str) -> Views:
        """One film's views in every window that ended then."""
        still = await self._still(edges_at(self._moment), None)
        return still.views(video_id, self._moment)

    async def _still(self, edges: dict[str, int], occurred_from: datetime | None) -> Still:
        still = Still(edges)
        await self._fold("leaderboard", still.write, occurred_from)
        return still

    async def history(self, video_id: str, bucket: Bucket) -> list[Point]:
        """A film's views bucket by bucket, the oldest first."""
        sink = MemorySink(statistics)

        def write(change: Change) -> None:
            for one in singly([change]):
                if one.key["video_id"] == video_id:
                    sink.write(one)

        await self._fold("statistics", write)
        return sorted(Point(row["start"], row["views"]) for row in sink.rows(TABLES[bucket]))

    async def films(self) -> dict[str, Video]:
        """Every film that was there, by its id: announced, and not deleted by then."""
        sink = MemorySink(catalogue)
        await self._fold("catalogue", sink.write)
        return {row["video_id"]: video_of(row) for row in sink.rows("videos") if row.get("deleted_at") is None}

    async def _fold(self, name: str, write: Callable[[Change], None], occurred_from: datetime | None = None) -> None:
        projection = folded_as(self._versions.active(name))
        spans = await self._replay.spans_until(projection.topics, self._moment, occurred_from=occurred_from)
        await self._replay.fold(projection, spans, write, recorded_by=self._moment)
