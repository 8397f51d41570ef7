"""What the system would have answered at a moment: the records that were in the log by then, folded in memory."""

from datetime import datetime

from agents.replaying import Replay
from projections.catalogue import catalogue
from projections.changes import Change, Increment
from projections.leaderboard import WINDOWS, leaderboard
from projections.queries.catalogue import Video, video_of
from projections.queries.leaderboard import Timeframe, Top, Views
from projections.queries.statistics import TABLES, Bucket, Point, start_of
from projections.queries.still import Still, edges_at
from projections.sinks.memory import MemorySink
from projections.statistics import statistics

BY_NAME = {window.name: window for window in WINDOWS}


class Past:
    """Answers as of `moment`, from the log alone: asked again next year, the same."""

    def __init__(self, replay: Replay, moment: datetime) -> None:
        self._replay = replay
        self._moment = moment

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
        spans = await self._replay.spans_until(leaderboard.topics, self._moment, occurred_from=occurred_from)
        await self._replay.fold(leaderboard, spans, still.write, recorded_by=self._moment)
        return still

    async def history(self, video_id: str, bucket: Bucket) -> list[Point]:
        """A film's views bucket by bucket, the oldest first."""
        sink = MemorySink(statistics)

        def write(change: Change) -> None:
            if isinstance(change, Increment) and change.key["video_id"] == video_id:
                sink.write(change)

        spans = await self._replay.spans_until(statistics.topics, self._moment)
        await self._replay.fold(statistics, spans, write, recorded_by=self._moment)
        return sorted(Point(row["start"], row["views"]) for row in sink.rows(TABLES[bucket]))

    async def films(self) -> dict[str, Video]:
        """Every film that was there, by its id: announced, and not deleted by then."""
        sink = MemorySink(catalogue)
        spans = await self._replay.spans_until(catalogue.topics, self._moment)
        await self._replay.fold(catalogue, spans, sink.write, recorded_by=self._moment)
        return {row["video_id"]: video_of(row) for row in sink.rows("videos") if row.get("deleted_at") is None}
