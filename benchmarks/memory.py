"""What a board takes in Redis, by the server's own count; against a member in a sorted set for each view."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from redis.asyncio import Redis

from benchmarks.system import System
from benchmarks.views import FILMS, zipf
from projections.changes import Tally
from projections.counting import MINUTE_SECONDS
from projections.leaderboard import leaderboard
from projections.queries.leaderboard import Leaderboard
from projections.sinks.sink import LogIdentity
from tests.working import until

VIEWS = 10_000_000
OVER = timedelta(days=30)
LOG = LogIdentity("benchmark", "benchmark", 1)
MEMBERS_AT_ONCE = 100_000
# As random as ours, which do not compress.
IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"film-{film}")) for film in range(FILMS)]
BY_THE_MINUTE = 2  # hours


class Taken(NamedTuple):
    """Bytes, and what was wrong with the board, if anything."""

    bytes: int
    wrong: str


async def compare_memory(system: System, views: int = VIEWS) -> str:
    """A sentence for each of the two promises, with its figures."""
    once, tenfold = await _board(system, views), await _board(system, 10 * views)
    members = await _members(system.stores.redis, system.settings.prefix, views)
    verdict = once.wrong or tenfold.wrong or "right"
    return (
        f"memory of the board: {views:,} views of {FILMS:,} films in 30 days take {once.bytes / 1e6:.1f} MB, a member for each view "
        f"{members / 1e6:,.1f} MB (1/{members / once.bytes:.0f}); {10 * views:,} views take {tenfold.bytes / 1e6:.1f} MB "
        f"({tenfold.bytes / once.bytes:.2f} times as much); answers {verdict}"
    )


async def _board(system: System, views: int) -> Taken:
    """Fold them as a rebuild of today does: the edges are where they are now, and what came before a window leaves no bucket in it."""
    version = await system.begin("leaderboard")
    sink, redis = system.stores.sink(version), system.stores.redis
    now = datetime.now(UTC)
    try:
        before = await _used(redis)
        await sink.prepare()
        await sink.tick(now)
        place = (await sink.checkpoint("views", 0, LOG)).place
        total: Counter[str] = Counter()
        for days in range(OVER.days, 0, -1):
            counted = {
                pair: by for hours in range(24 * days, 24 * (days - 1), -1) for pair, by in _an_hour(views, hours, now)
            }
            for (film, _), by in counted.items():
                total[film] += by
            change = Tally("views", ("video_id", "minute"), counted)
            await sink.apply([change], expected=place, next_offset=place.offset + 1)
            place = place._replace(offset=place.offset + 1)
        # Buckets are packed once the clock has moved on, which in a minute it has.
        await sink.tick(datetime.now(UTC) + timedelta(minutes=1))
        board = Leaderboard(redis, system.settings.prefix, system.answering(version))
        found = {item.video_id: item.views for item in (await board.top(1_000, "all_time")).items}
        is_right = bool(found) and all(total[film] == by for film, by in found.items())
        return Taken(await _used(redis) - before, "" if is_right else f"wrong totals of {leaderboard.name}")
    finally:
        await system.drop(version)


def _an_hour(views: int, hours_ago: int, now: datetime) -> Iterator[tuple[tuple[str, int], int]]:
    """Its share of the views, of each film in each minute; where no window tells minutes apart any more, all in its first."""
    share = round(views / (OVER / timedelta(hours=1)))
    first = int((now - timedelta(hours=hours_ago)).timestamp()) // MINUTE_SECONDS
    minutes = 60 if hours_ago <= BY_THE_MINUTE else 1
    # So many draws of so many pairs, without drawing each: what is expected of a pair is its rate.
    rates = np.outer(zipf() * share / minutes, np.ones(minutes))
    drawn = np.random.default_rng(hours_ago).poisson(rates)
    for film, minute in np.argwhere(drawn).tolist():
        yield (IDS[film], first + minute), int(drawn[film, minute])


async def _members(redis: Redis, prefix: str, views: int) -> int:
    """The seed's way: each view is a member of its film's sorted set, by the time at which it occurred."""
    key = f"{prefix}members:{uuid.uuid4().hex[:6]}:"
    films = np.random.default_rng(7).choice(FILMS, size=views, p=zipf()).tolist()
    before = await _used(redis)
    try:
        for first in range(0, views, MEMBERS_AT_ONCE):
            of_film: dict[int, dict[str, int]] = defaultdict(dict)
            for number, film in enumerate(films[first : first + MEMBERS_AT_ONCE], start=first):
                of_film[film][f"01990000-0000-7000-8000-{number:012x}"] = number
            async with redis.pipeline(transaction=False) as pipeline:
                for film, members in of_film.items():
                    pipeline.zadd(f"{key}{IDS[film]}", members)
                await pipeline.execute()
        return await _used(redis) - before
    finally:
        for film in IDS:
            await redis.unlink(f"{key}{film}")


async def _used(redis: Redis) -> int:
    """What the data take, without the server's own buffers and tables that grow in jumps, once it has freed what was dropped."""

    async def is_freed() -> bool:
        return not (await redis.info("memory"))["lazyfree_pending_objects"]

    await until(is_freed)
    memory = await redis.memory_stats()
    return int(memory["dataset.bytes"])
