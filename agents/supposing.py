"""What would move if a version with a rule answered: the films of two versions, ranked beside each other."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from agents.stores import Stores
from agents.verifying import views_of
from projections.queries.contents import contents_of
from projections.queries.rows import Row
from projections.queries.versions import Version


class Moved(NamedTuple):
    """A film's views and rank now and then; no rank where it has no view."""

    video_id: str
    views_now: int
    views_then: int
    rank_now: int | None
    rank_then: int | None

    @property
    def climbs(self) -> int | None:
        """By how many ranks; None where it has none before or after."""
        if self.rank_now is None or self.rank_then is None:
            return None
        return self.rank_now - self.rank_then


async def films_of(stores: Stores, version: Version) -> dict[str, int]:
    """Every film's views for all time, as this version holds them. Raises StoreUnavailable."""
    rows: AsyncIterator[Row] = contents_of(version, *stores)
    found: dict[str, int] = {}
    async for row in rows:
        if views := views_of(version.projection, row):
            video_id = row.key[1] if row.table == "top" else row.values.get("video_id", row.key[0])
            found[video_id] = found.get(video_id, 0) + views
    return found


def moved(now: Mapping[str, int], then: Mapping[str, int], k: int) -> list[Moved]:
    """The first `k` films of either, in the order of then; those that only now are among them come last."""
    ranks_now, ranks_then = _ranks(now), _ranks(then)
    shown = {video for ranks in (ranks_now, ranks_then) for video, rank in ranks.items() if rank <= k}
    films = [
        Moved(video, now.get(video, 0), then.get(video, 0), ranks_now.get(video), ranks_then.get(video))
        for video in shown
    ]
    last = len(now) + len(then)
    return sorted(films, key=lambda film: (film.rank_then or last, film.rank_now or last))


def _ranks(films: Mapping[str, int]) -> dict[str, int]:
    """As a board ranks: most views first, of equals the greater id."""
    ordered = sorted(films, key=lambda video: (films[video], video), reverse=True)
    return {video: rank for rank, video in enumerate(ordered, start=1)}
