"""The leaderboard as it is read: the first films of a window, and one film's views in every window."""

import asyncio
from datetime import datetime, timedelta
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis

from projections.leaderboard import leaderboard
from projections.queries.versions import Versions
from projections.sinks.redis_keys import Keys, shard_of
from projections.sinks.redis_scripts import Script, reaching_redis
from projections.sinks.redis_windows import NAMES, ROLLING
from projections.sinks.sink import StoreUnavailable
from schemas.log import EPOCH

FOLDER = Path(__file__).parent / "lua"
TOP, VIEWS = Script(FOLDER / "top.lua"), Script(FOLDER / "views.lua")

Timeframe = Literal["hour", "day", "week", "month", "year", "all_time"]
ROLLING_BY_NAME = {window.name: window for window in ROLLING}


class Ranked(NamedTuple):
    """A film and its views; `rank` counts from 1."""

    rank: int
    video_id: str
    views: int


class Top(NamedTuple):
    """The first films of a window: most views first, of equals the greater id.

    The window begins at `from_` (None for all time) and holds every view since that is folded; it last moved at `as_of`, which is `to`.
    """

    timeframe: Timeframe
    from_: datetime | None
    to: datetime
    as_of: datetime
    source: str
    items: list[Ranked]


class Views(NamedTuple):
    """One film's views in every window."""

    all_time: int
    hour: int
    day: int
    week: int
    month: int
    year: int
    as_of: datetime
    source: str


class Leaderboard:
    """Reads the board. Raises StoreUnavailable when Redis is down, or holds no board that a worker has ticked."""

    source = "leaderboard"

    def __init__(self, redis: Redis, prefix: str, versions: Versions) -> None:
        self._redis = redis
        self._prefix = prefix
        self._versions = versions

    @property
    def _shards(self) -> list[Keys]:
        return self._versions.active(leaderboard.name).keys(self._prefix)

    async def top(self, k: int, timeframe: Timeframe) -> Top:
        """The first `k` films, deleted ones left out; one round trip a shard, side by side."""
        window = ROLLING_BY_NAME.get(timeframe)
        fields = ["ticked_ms", f"edge:{timeframe}"] if window else ["ticked_ms"]
        answers = await asyncio.gather(
            *(
                TOP.run(self._redis, [keys.state, keys.top(timeframe), keys.deleted], [k, *fields])
                for keys in self._shards
            )
        )
        states = [state for state, _ in answers]
        as_of = _as_of([state[0] for state in states])
        ranked = merge(*(_descending(items) for _, items in answers), reverse=True)
        items = [Ranked(rank, video_id, views) for rank, (views, video_id) in enumerate(islice(ranked, k), start=1)]
        # Between two shards' ticks the older edge is the honest one.
        from_ = window.start(min(int(state[1]) for state in states)) if window else None
        return Top(timeframe, from_, as_of, as_of, self.source, items)

    async def views(self, video_id: str) -> Views:
        """The film's views in every window, zeros where nobody has watched it."""
        shards = self._shards
        keys = shards[shard_of(video_id, len(shards))]
        ticked_ms, *counts = await VIEWS.run(self._redis, [keys.state, *map(keys.top, NAMES)], [video_id])
        by_window = {name: int(float(count)) for name, count in zip(NAMES, counts, strict=True)}
        return Views(**by_window, as_of=_as_of([ticked_ms]), source=self.source)

    async def as_of(self) -> datetime:
        """When the board last moved: far behind the clock, no worker is at work."""
        with reaching_redis():
            return _as_of([await self._redis.hget(keys.state, "ticked_ms") for keys in self._shards])


def _as_of(ticked_ms: list[Any]) -> datetime:
    if None in ticked_ms:
        raise StoreUnavailable("redis", "it holds no leaderboard yet: a worker makes it")
    return EPOCH + timedelta(milliseconds=min(map(int, ticked_ms)))


def _descending(items: list[bytes]) -> list[tuple[int, str]]:
    return [(int(float(views)), video_id.decode()) for video_id, views in zip(items[::2], items[1::2], strict=True)]
