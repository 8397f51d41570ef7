"""Time passes on a board: buckets leave their windows.

A bucket that leaves is frozen in the step that moves the window's edge past it: views that come later do not enter the window, and do not
change what leaves. So any worker may take the next slice out of the window, at any time, and none is taken twice.
"""

from datetime import datetime
from itertools import takewhile
from pathlib import Path

import orjson
from redis.asyncio import Redis

from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Limits
from projections.sinks.redis_packing import Numbered, bucket_of, pack, pack_closed, read_still
from projections.sinks.redis_scripts import Script
from projections.sinks.redis_windows import SPANS, Rolling, Span
from projections.sinks.sink import StoreUnavailable
from schemas.log import milliseconds_of

FOLDER = Path(__file__).parent / "lua"
TICK, LEAVE, DRAIN = (Script(FOLDER / f"{name}.lua") for name in ("tick", "leave", "drain"))

PACK_FIRST = -1  # how `leave.lua` asks for it


async def roll(redis: Redis, keys: Keys, now: datetime, limits: Limits) -> None:
    """Move every window's edge to `now`, and pack what has closed. May be cut short anywhere, and run by several workers at once.

    Raises StoreUnavailable when a window no longer holds what has to leave it.
    """
    fields = await TICK.run(redis, [keys.state], [milliseconds_of(now)])
    state: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
    if not state:
        return
    now_ms = int(state[b"ticked_ms"])
    moved = False
    # The shorter window of a span first: a bucket is forgotten when it has left the longest.
    for span in SPANS:
        for window in span.windows:
            edge = window.edge_at(now_ms)
            if int(state[f"edge:{window.name}".encode()]) < edge or f"leaving:{window.name}".encode() in state:
                await _Leaving(redis, keys, span, window, limits.leaving).until(edge)
                moved = True
    if moved:
        await pack_closed(redis, keys, now_ms, limits.worth_packing)


class _Leaving:
    """The way of buckets out of one window."""

    def __init__(self, redis: Redis, keys: Keys, span: Span, window: Rolling, slice_films: int) -> None:
        self._redis = redis
        self._keys = keys
        self._span = span
        self._window = window
        self._slice_films = slice_films
        self._numbered = Numbered(redis, keys)
        self._shorter = [other.name for other in takewhile(lambda other: other != window, span.windows)]

    async def until(self, target: int) -> None:
        """Move the edge to `target`, one bucket after the other."""
        while True:
            if cursor := await self._cursor():
                await self._drain(cursor)
                continue
            edge = await self._redis.hget(self._keys.state, f"edge:{self._window.name}")
            if edge is None or int(edge) >= target:
                return
            await self._begin(int(edge), target)

    async def _cursor(self) -> str | None:
        """Which bucket is leaving just now: its number, its views and how many films have left."""
        cursor = await self._redis.hget(self._keys.state, f"leaving:{self._window.name}")
        return cursor.decode() if isinstance(cursor, bytes) else cursor

    async def _begin(self, edge: int, target: int) -> None:
        index = self._keys.buckets(self._span.name)
        held = [number for number in map(int, await self._redis.hkeys(index)) if edge <= number < target]
        number = min(held, default=target)
        live, frozen, _ = bucket_of(self._keys, self._span, number)
        arguments = [self._window.name, edge, number, "past" if held else "to", *self._shorter]
        if await LEAVE.run(self._redis, [self._keys.state, index, live, frozen], arguments) == PACK_FIRST:
            await pack(self._redis, self._keys, self._span, number, self._numbered)

    async def _drain(self, cursor: str) -> None:
        """Take the bucket out of the window, slice by slice, from wherever this or another worker has come to."""
        number, total, _ = map(int, cursor.split())
        bucket = bucket_of(self._keys, self._span, number)
        films = await read_still(self._redis, bucket, self._numbered)
        # What was read is what leaves only if the bucket is still leaving now that all of it has been read.
        left = await self._cursor()
        if left and left.startswith(f"{number} {total} ") and sum(views for _, views in films) != total:
            raise StoreUnavailable(
                "redis", f"{bucket.live} has lost some of its {total:,} views: rebuild the leaderboard"
            )
        while left and left.startswith(f"{number} {total} "):
            done = int(left.split()[2])
            next_done = done + self._slice_films
            next_cursor = f"{number} {total} {next_done}" if next_done < len(films) else ""
            left = next_cursor if await self._take(films[done:next_done], left, next_cursor) else await self._cursor()

    async def _take(self, films: list[tuple[str, int]], cursor: str, next_cursor: str) -> bool:
        """Take one slice; False when another worker has."""
        number = int(cursor.split()[0])
        top = self._keys.top(self._window.name)
        names = [self._keys.state, top, self._keys.buckets(self._span.name), *bucket_of(self._keys, self._span, number)]
        forgotten = number if self._window == self._span.windows[-1] else ""
        columns = orjson.dumps(list(zip(*films, strict=True)))
        answer = await DRAIN.run(self._redis, names, [self._window.name, cursor, next_cursor, forgotten, columns])
        if isinstance(answer, bytes):
            raise StoreUnavailable("redis", f"{top} has lost views of {answer.decode()}: rebuild the leaderboard")
        return bool(answer)
