"""Closed buckets, packed: one compressed value instead of a hash.

A bucket's views lie in up to three places: the bucket itself, to which views are added; the same `frozen`, which nobody changes; and
`packed`. A late view in a packed bucket goes to the bucket itself again, and is packed again when such views have become many.

Films are numbered in the order in which they are packed first, and a packed value holds numbers: an id of 36 random letters would take more
than all else, once an hour.
"""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from hashlib import sha1
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import orjson
from redis.asyncio import Redis

from projections.sinks.redis_keys import Keys
from projections.sinks.redis_scripts import Script
from projections.sinks.redis_windows import MINUTE_MS, SPANS, Span
from projections.sinks.sink import StoreUnavailable

FOLDER = Path(__file__).parent / "lua"
PACK, NUMBER = (Script(FOLDER / f"{name}.lua") for name in ("pack", "number"))

FILM_BYTES = 80  # that a film takes in a hash
PACK_AFTER_MINUTES = 10  # that a bucket is closed: most late views have come by then
READ_AT_ONCE = 500

Films = list[tuple[str, int]]


class Bucket(NamedTuple):
    """The names of one bucket's keys."""

    live: str
    frozen: str
    packed: str


class Numbered:
    """The films that have a number in `keys`: their `ids` in its order, and the number of each."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.ids: list[str] = []
        self.numbers: dict[str, int] = {}
        self._epoch: bytes | None = None
        self._redis = redis
        self._keys = keys

    async def learn(self) -> None:
        """What has come to the list, which only grows. Where the state is another by now, it is read anew."""
        while True:
            known = max(0, len(self.ids) - 1)
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hget(self._keys.state, "epoch")
                pipeline.lrange(self._keys.numbered, known, known + READ_AT_ONCE - 1)
                epoch, found = await pipeline.execute()
            ids = [video_id.decode() for video_id in found]
            if epoch != self._epoch or (self.ids and ids[:1] != self.ids[-1:]):
                is_from_the_start = not self.ids
                self.ids, self.numbers, self._epoch = [], {}, epoch
                if not is_from_the_start:
                    continue
            fresh = ids[1:] if self.ids else ids
            self.numbers |= zip(fresh, range(len(self.ids), len(self.ids) + len(fresh)), strict=True)
            self.ids += fresh
            if len(ids) < READ_AT_ONCE:
                return

    async def give(self, video_ids: Sequence[str]) -> bool:
        """Give a number to those that have none; False when another worker gives some just now."""
        await self.learn()
        fresh = [video_id for video_id in video_ids if video_id not in self.numbers]
        for first in range(0, len(fresh), READ_AT_ONCE):
            some = fresh[first : first + READ_AT_ONCE]
            if not await NUMBER.run(self._redis, [self._keys.state, self._keys.numbered], [len(self.ids), *some]):
                return False
            await self.learn()
        return all(video_id in self.numbers for video_id in video_ids)


def bucket_of(keys: Keys, span: Span, number: int) -> Bucket:
    """The keys of the bucket with this number."""
    return Bucket(keys.bucket(span.name, number), keys.frozen(span.name, number), keys.packed(span.name, number))


async def read_still(redis: Redis, bucket: Bucket, numbered: Numbered) -> Films:
    """What of a bucket is frozen and packed, ordered by id. Meaningful only if nobody packs the bucket or forgets it meanwhile."""
    packed = await redis.get(bucket.packed)
    assert not isinstance(packed, str)
    if packed:
        # After the value, which has no number that came later.
        await numbered.learn()
    # A scan may return a field twice; `frozen` does not change, so twice is the same.
    frozen = {video_id: int(views) async for video_id, views in redis.hscan_iter(bucket.frozen, count=READ_AT_ONCE)}
    return await asyncio.to_thread(_merged, packed, numbered.ids, frozen)


async def pack_closed(redis: Redis, keys: Keys, now_ms: int, worth_packing: int) -> None:
    """Pack what was frozen, and each closed bucket that is large enough beside what of it is packed already."""
    numbered = Numbered(redis, keys)
    for span in SPANS:
        open_from = (now_ms // MINUTE_MS - PACK_AFTER_MINUTES) // span.minutes
        numbers = [number for number in map(int, await redis.hkeys(keys.buckets(span.name))) if number < open_from]
        async with redis.pipeline(transaction=False) as pipeline:
            for number in numbers:
                bucket = bucket_of(keys, span, number)
                pipeline.hlen(bucket.live)
                pipeline.exists(bucket.frozen)
                pipeline.strlen(bucket.packed)
            found = iter(await pipeline.execute())
        for number, films, frozen, packed_bytes in zip(numbers, found, found, found, strict=True):
            if frozen or (films >= worth_packing and films * FILM_BYTES * 2 >= packed_bytes):
                await pack(redis, keys, span, number, numbered)


async def pack(redis: Redis, keys: Keys, span: Span, number: int, numbered: Numbered) -> None:
    """Freeze the bucket and put all that is frozen into the packed value; nothing is done while it leaves a window."""
    bucket = bucket_of(keys, span, number)
    windows = [window.name for window in span.windows]
    if not await PACK.run(redis, [keys.state, *bucket], [number, "", "", *windows]):
        return
    before = await redis.get(bucket.packed) or b""
    assert not isinstance(before, str)
    films = await read_still(redis, bucket, numbered)
    if not await numbered.give([video_id for video_id, _ in films]):
        return
    value = await asyncio.to_thread(compressed, films, numbered.numbers)
    # Nothing comes of it when another worker has packed meanwhile, or a window began to let the bucket go.
    digest = sha1(before, usedforsecurity=False).hexdigest()
    await PACK.run(redis, [keys.state, *bucket], [number, digest, value, *windows])


def unpacked(packed: bytes, numbered: Sequence[str]) -> dict[str, int]:
    """The views of each film in a packed value. Releases before numbers packed the ids themselves.

    Raises StoreUnavailable for a number that no film has.
    """
    films, views = orjson.loads(zlib.decompress(packed))
    if not isinstance(films[0], str):
        numbers = list(accumulate(films))
        if numbers[-1] >= len(numbered):
            raise StoreUnavailable("redis", "the numbers of packed films are lost: rebuild the leaderboard")
        films = [numbered[number] for number in numbers]
    return dict(zip(films, views, strict=True))


def _merged(packed: bytes | None, numbered: Sequence[str], late: dict[bytes, int]) -> Films:
    films = unpacked(packed, numbered) if packed else {}
    for video_id, views in late.items():
        films[video_id.decode()] = films.get(video_id.decode(), 0) + views
    return sorted(films.items())


def compressed(films: Films, numbers: Mapping[str, int]) -> bytes:
    """The packed value: column by column, and of the numbers what lies between two, small and alike."""
    rows = sorted((numbers[video_id], views) for video_id, views in films)
    gaps = [number - before for (number, _), before in zip(rows, [0, *(number for number, _ in rows)], strict=False)]
    return zlib.compress(orjson.dumps([gaps, [views for _, views in rows]]), zlib.Z_BEST_COMPRESSION)
