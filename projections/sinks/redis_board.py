"""The leaderboard in Redis: each film's views in time buckets, and in a sorted set for each window.

Buckets of a minute, an hour and a day are kept as long as a window made of them holds them. A window's edge is its first bucket. A view
adds to every window whose edge is not after its bucket, however late it comes, and to the buckets of those windows: at any time a window
is the sum of the buckets from its edge on. `redis_rolling` moves the edges.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from msgspec import msgpack
from numpy.typing import NDArray
from redis.asyncio import Redis

from projections.changes import Change, Increment, Single, Tally, Upsert, singly
from projections.occurrences import Occurrences
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Limits, Move, Refused, Rows, told
from projections.sinks.redis_rolling import roll
from projections.sinks.redis_scripts import Script
from projections.sinks.redis_windows import ENDLESS, NAMES, ROLLING, SPANS
from projections.sinks.sink import StoreUnavailable

COUNT = Script(Path(__file__).parent / "lua" / "count.lua")

Edges = tuple[int, ...]
VIEWS_BY = ("video_id", "minute")
MINUTES_OF_A_FILM = 4


class Board:
    """Counts views into one shard."""

    def __init__(self, redis: Redis, keys: Keys, limits: Limits) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits
        self._edges: Edges = (0,) * len(ROLLING)

    def beginning(self) -> dict[str, int]:
        return dict.fromkeys([f"edge:{window.name}" for window in ROLLING] + [f"members:{name}" for name in NAMES], 0)

    def identity(self, change: Single) -> str:
        if "video_id" not in change.key:
            raise _no_place_for(change)
        return str(change.key["video_id"])

    async def learn(self) -> None:
        held = await self._redis.hmget(self._keys.state, [f"edge:{window.name}" for window in ROLLING])
        self._edges = tuple(int(edge or 0) for edge in held)

    def merge(self, rows: Rows, change: Change) -> None:
        """A row is a film and a minute with the views in it, or a deleted film and no minute.

        Minutes that no window tells apart any more are one: a log of months would else be as many rows as views.
        """
        if _is_of_views(change):
            for row, views in self._standing(change.counts).items():
                rows[row] = rows.get(row, 0) + views
        elif isinstance(change, Increment) and change.table == "views" and change.by > 0:
            self.merge(rows, Tally(change.table, VIEWS_BY, {tuple(change.key[name] for name in VIEWS_BY): change.by}))
        elif isinstance(change, Upsert) and change.table == "deleted":
            rows[change.key["video_id"], None] = 0
        else:
            raise _no_place_for(change)

    def condensed(self, change: Change) -> Change:
        return change._replace(counts=self._standing(change.counts)) if _is_of_views(change) else change

    def _standing(self, counts: Mapping[tuple[Any, ...], int]) -> Mapping[tuple[Any, ...], int]:
        if isinstance(counts, Occurrences):
            return counts.at(self._first_minutes(counts.numbers))
        minutes = list({minute for _, minute in counts})
        first = dict(zip(minutes, self._first_minutes(np.array(minutes, dtype=np.int64)).tolist(), strict=True))
        standing: Counter[tuple[Any, ...]] = Counter()
        for (video_id, minute), views in counts.items():
            standing[video_id, first[minute]] += views
        return standing

    def _first_minutes(self, minutes: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each the first minute of the shortest bucket by which a window holds it: edges only move on, so both count alike for good."""
        edge_of = dict(zip(ROLLING, self._edges, strict=True))
        first = np.zeros_like(minutes)
        for span in reversed(SPANS):
            buckets = minutes // span.minutes
            is_held = buckets >= min(edge_of[window] for window in span.windows)
            first = np.where(is_held, buckets * span.minutes, first)
        return first

    def pieces(self, rows: Rows, most: int) -> list[Rows]:
        """The minutes of a film stay together, as they add up: `most` films a piece, and a few minutes of each on average."""
        by_film: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        for row in rows.items():
            by_film[row[0][0]].append(row)
        pieces: list[Rows] = []
        films = 0
        for minutes in by_film.values():
            if not pieces or films == most or len(pieces[-1]) + len(minutes) > most * MINUTES_OF_A_FILM:
                pieces.append({})
                films = 0
            pieces[-1].update(minutes)
            films += 1
        return pieces

    async def write(self, rows: Rows, moves: Sequence[Move]) -> bool:
        """The sums depend on the edges: when they have moved since they were seen last, the script tells, and it is summed again."""
        while True:
            edges = self._edges
            keys, step = summed(rows, edges, self._keys, moves[0].place)
            answer = await COUNT.run(self._redis, keys, [*told(moves), " ".join(map(str, edges)), msgpack.encode(step)])
            match answer[0]:
                case b"edges":
                    self._edges = tuple(map(int, answer[1:]))
                case b"lost":
                    _, key, there, kept = answer
                    raise StoreUnavailable(
                        "redis",
                        f"{key.decode()} has {there} members instead of {kept}: state is lost, rebuild the leaderboard",
                    )
                case result:
                    return bool(result == b"applied")

    def keys(self, rows: Rows) -> dict[str, str]:
        minutes = {minute for _, minute in rows if minute is not None}
        buckets = {self._keys.bucket(span.name, minute // span.minutes) for span in SPANS for minute in minutes}
        indexes = [self._keys.buckets(span.name) for span in SPANS]
        return (
            {self._keys.deleted: "set"}
            | {self._keys.top(name): "zset" for name in NAMES}
            | dict.fromkeys([*indexes, *buckets], "hash")
        )

    def in_the_way(self, key: str, why: str) -> Exception:
        """No view is to blame for a key of the board: every partition waits until it is out of the way."""
        return StoreUnavailable("redis", f"{key} is in the way of the leaderboard: {why}")

    async def tick(self, now: datetime) -> None:
        await roll(self._redis, self._keys, now, self._limits)


def _is_of_views(change: Change) -> TypeGuard[Tally]:
    return isinstance(change, Tally) and (change.table, change.key_columns) == ("views", VIEWS_BY)


def _no_place_for(change: Change) -> Refused:
    return Refused(
        f"the board takes views and deleted films, not {change}", lambda other: change in (other, *singly([other]))
    )


def summed(rows: Rows, edges: Edges, keys: Keys, place: str) -> tuple[list[str], dict[str, Any]]:
    """The script's keys, and the step as it takes it: what adds up the same minutes shares one list of sums."""
    by_minute: dict[int, dict[str, int]] = defaultdict(dict)
    deleted = []
    for (video_id, minute), views in rows.items():
        if minute is None:
            deleted.append(video_id)
        else:
            by_minute[minute][video_id] = views

    tops: dict[str, list[int]] = defaultdict(list)
    buckets: dict[tuple[str, int], list[int]] = defaultdict(list)
    edge_of = dict(zip(ROLLING, edges, strict=True))
    for minute in sorted(by_minute):
        for span in SPANS:
            bucket = minute // span.minutes
            holding = [window.name for window in span.windows if edge_of[window] <= bucket]
            for name in holding:
                tops[name].append(minute)
            if holding:
                buckets[span.name, bucket].append(minute)
        for name in ENDLESS:
            tops[name].append(minute)

    numbers: dict[tuple[int, ...], int] = {}
    sums: list[tuple[list[str], list[int]]] = []

    def number_of(minutes: list[int]) -> int:
        if (number := numbers.get(tuple(minutes))) is None:
            total = dict(by_minute[minutes[0]])
            for minute in minutes[1:]:
                for video_id, views in by_minute[minute].items():
                    total[video_id] = total.get(video_id, 0) + views
            sums.append((list(total), list(total.values())))
            number = numbers[tuple(minutes)] = len(sums)
        return number

    names = [keys.checkpoints, keys.state, keys.journal(place), keys.deleted, *map(keys.top, NAMES)]
    written = []
    totals: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for (span_name, bucket), minutes in buckets.items():
        names.append(keys.bucket(span_name, bucket))
        number = number_of(minutes)
        written.append([len(names), number])
        for column, value in zip(totals[span_name], (bucket, sum(sums[number - 1][1])), strict=True):
            column.append(value)
    indexes = [[len(names) + number, of_span] for number, of_span in enumerate(totals.values(), start=1)]
    names += map(keys.buckets, totals)
    return names, {
        "windows": NAMES,
        "sums": sums,
        "tops": [number_of(tops[name]) if name in tops else 0 for name in NAMES],
        "buckets": written,
        "indexes": indexes,
        "deleted": deleted,
    }
