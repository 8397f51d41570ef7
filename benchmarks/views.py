"""Views by the million in a log, as other services would have appended them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from benchmarks.system import System
from schemas.events import VideoViewed
from schemas.partitions import partitions_of
from schemas.streams import streams

FILMS = 10_000  # the n-th watched as 1/n (Zipf)
TWICE_EVERY = 20  # five in a hundred are sent twice
CHUNK = 50_000
BATCH_BYTES = 256 * 1024
UNDER_WAY = 24  # batches

Headers = list[tuple[str, bytes]]


async def append_views(system: System, count: int, *, over: timedelta, copied: bool = False) -> Counter[str]:
    """`count` views that occurred evenly `over` the time before now, and how often each film counts.

    `copied` has them carry their original append time, as a copier of topics writes it: then they are recorded when they occurred.
    """
    topic = system.settings.named("views")
    partitions = streams().topics["views"].partitions
    weights = 1 / np.arange(1, FILMS + 1)
    films = np.random.default_rng(7).choice(FILMS, size=count, p=weights / weights.sum())
    began = datetime.now(UTC) - over
    producer = AIOKafkaProducer(bootstrap_servers=system.settings.kafka_bootstrap, max_batch_size=BATCH_BYTES)
    await producer.start()
    try:
        under_way: set[asyncio.Future[Any]] = set()
        for first in range(0, count, CHUNK):
            last = min(count, first + CHUNK)
            rows = list(_rows(range(first, last), films[first:last].tolist(), began, over / count, copied))
            lies_on = partitions_of([key for key, _, _ in rows], partitions).tolist()
            for partition in range(partitions):
                own = [row for row, on in zip(rows, lies_on, strict=True) if on == partition]
                while own:
                    batch = producer.create_batch()
                    taken = 0
                    for key, value, headers in own:
                        if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                            break
                        taken += 1
                    own = own[taken:]
                    under_way.add(await producer.send_batch(batch, topic, partition=partition))
                    if len(under_way) >= UNDER_WAY:
                        done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                        for one in done:
                            one.result()
        await asyncio.gather(*under_way)
    finally:
        await producer.stop()
    return Counter({f"film-{film}": int(views) for film, views in enumerate(np.bincount(films)) if views})


def records_of(count: int) -> int:
    """How many records `count` views are, with those sent twice."""
    return count + -(-count // TWICE_EVERY)


def _rows(
    numbers: range, films: list[int], began: datetime, apart: timedelta, copied: bool
) -> Iterator[tuple[bytes, bytes, Headers]]:
    same: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_source", b"/benchmark"),
        ("ce_type", VideoViewed.type.encode()),
        ("content-type", b"application/json"),
    ]
    for number, film in zip(numbers, films, strict=True):
        at = (began + apart * number).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        view_id = f"01990000-0000-7000-8000-{number:012x}"
        value = f'{{"view_id":"{view_id}","video_id":"film-{film}","occurred_at":"{at}"}}'.encode()
        headers = [*same, ("ce_id", view_id.encode())] + ([("ce_recordedtime", at.encode())] if copied else [])
        for _ in range(2 if number % TWICE_EVERY == 0 else 1):
            yield view_id.encode(), value, headers
