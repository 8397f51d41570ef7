"""Closed buckets, packed: one compressed value instead of a hash.

A bucket's views lie in up to three places: the bucket itself, to which views are added; the same `frozen`, which nobody changes; and
`packed`. A late view in a packed bucket goes to the bucket itself again, and is packed again when such views have become many.
"""

import asyncio
import zlib
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

import orjson
from redis.asyncio import Redis

from projections.sinks.redis_keys import Keys
from projections.sinks.redis_scripts import Script
from projections.sinks.redis_windows import MINUTE_MS, SPANS, Span

PACK = Script(Path(__file__).parent / "lua" / "pack.lua")

PACKED_SPANS = ("hour", "day")
FILM_BYTES = 80  # that a film takes in a hash
PACK_AFTER_MINUTES = 10  # that a bucket is closed: most late views have come by then
READ_AT_ONCE = 500

Films = list[tuple[str, int]]


class Bucket(NamedTuple):
    """The names of one bucket's keys."""

    live: str
    frozen: str
    packed: str


def bucket_of(keys: Keys, span: Span, number: int) -> Bucket:
    """The keys of the bucket with this number."""
    return Bucket(keys.bucket(span.name, number), keys.frozen(span.name, number), keys.packed(span.name, number))


async def read_still(redis: Redis, bucket: Bucket) -> Films:
    """What of a bucket is frozen and packed, ordered by id. Meaningful only if nobody packs the bucket or forgets it meanwhile."""
    packed = await redis.get(bucket.packed)
    assert not isinstance(packed, str)
    # A scan may return a field twice; `frozen` does not change, so twice is the same.
    frozen = {video_id: int(views) async for video_id, views in redis.hscan_iter(bucket.frozen, count=READ_AT_ONCE)}
    return await asyncio.to_thread(_merged, packed, frozen)


async def pack_closed(redis: Redis, keys: Keys, now_ms: int, worth_packing: int) -> None:
    """Pack what was frozen, and each closed bucket that is large enough beside what of it is packed already."""
    for span in SPANS:
        if span.name not in PACKED_SPANS:
            continue
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
                await pack(redis, keys, span, number)


async def pack(redis: Redis, keys: Keys, span: Span, number: int) -> None:
    """Freeze the bucket and put all that is frozen into the packed value; nothing is done while it leaves a window."""
    bucket = bucket_of(keys, span, number)
    windows = [window.name for window in span.windows]
    if not await PACK.run(redis, [keys.state, *bucket], [number, "", "", *windows]):
        return
    before = await redis.get(bucket.packed) or b""
    assert not isinstance(before, str)
    films = await read_still(redis, bucket)
    value = await asyncio.to_thread(_compressed, films)
    # Nothing comes of it when another worker has packed meanwhile, or a window began to let the bucket go.
    digest = sha1(before, usedforsecurity=False).hexdigest()
    await PACK.run(redis, [keys.state, *bucket], [number, digest, value, *windows])


def _merged(packed: bytes | None, late: dict[bytes, int]) -> Films:
    films = dict(zip(*orjson.loads(zlib.decompress(packed)), strict=True)) if packed else {}
    for video_id, views in late.items():
        films[video_id.decode()] = films.get(video_id.decode(), 0) + views
    return sorted(films.items())


def _compressed(films: Films) -> bytes:
    # Column by column: ids that are sorted share their beginnings.
    return zlib.compress(orjson.dumps(list(zip(*films, strict=True))))
