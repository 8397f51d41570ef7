"""The board as it stood at one moment, in memory: what is replayed for a question about the past, and what a board is proven against."""

from collections.abc import Mapping
from datetime import datetime
from heapq import nlargest

from projections.changes import Change, Increment, Upsert, singly
from projections.counting import minute_of
from projections.leaderboard import WINDOWS
from projections.queries.leaderboard import Ranked, Timeframe, Top, Views
from projections.queries.statistics import start_of
from projections.sinks.redis_windows import MINUTE
from schemas.log import EPOCH

Edges = Mapping[str, int]
"""By the name of each window its first minute, counted from 1970."""


def edges_at(moment: datetime) -> dict[str, int]:
    """Where every window begins at `moment`."""
    starts = {window.name: start_of(window, moment) for window in WINDOWS}
    return {name: minute_of(start) if start else 0 for name, start in starts.items()}


class Still:
    """Views summed into the windows of `edges`, as the leaderboard's changes come, in whatever order.

    A window holds every view from its edge on. Its end is open: a view may have occurred a minute after the moment it was recorded.
    """

    source = "log"

    def __init__(self, edges: Edges) -> None:
        self.windows: dict[str, dict[str, int]] = {name: {} for name in edges}
        self.deleted: set[str] = set()
        self._edges = sorted(edges.items(), key=lambda item: item[1])

    def write(self, change: Change) -> None:
        """Let one change of the leaderboard take effect."""
        for one in singly([change]):
            if isinstance(one, Increment):
                video_id, minute = one.key["video_id"], one.key["minute"]
                for name, edge in self._edges:
                    if minute < edge:
                        break
                    counted = self.windows[name]
                    counted[video_id] = counted.get(video_id, 0) + one.by
            elif isinstance(one, Upsert):
                self.deleted.add(one.key["video_id"])

    def top(self, k: int, timeframe: Timeframe, as_of: datetime) -> Top:
        """The first `k` films, deleted ones left out: most views first, of equals the greater id."""
        counted = self.windows[timeframe].items()
        first = nlargest(k, ((views, video_id) for video_id, views in counted if video_id not in self.deleted))
        items = [Ranked(rank, video_id, views) for rank, (views, video_id) in enumerate(first, start=1)]
        edge = dict(self._edges)[timeframe]
        from_ = None if timeframe == "all_time" else EPOCH + edge * MINUTE
        return Top(timeframe, from_, as_of, as_of, self.source, items)

    def views(self, video_id: str, as_of: datetime) -> Views:
        """The film's views in every window, zeros where nobody had watched it."""
        counted = {name: films.get(video_id, 0) for name, films in self.windows.items()}
        return Views(**counted, as_of=as_of, source=self.source)
