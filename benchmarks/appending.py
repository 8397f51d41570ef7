"""Records into a log as fast as one producer can."""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer

from compose.settings import Settings
from schemas.partitions import partitions_of
from schemas.streams import streams

CHUNK = 50_000
BATCH_BYTES = 256 * 1024
UNDER_WAY = 24  # batches

Headers = list[tuple[str, bytes]]


async def append(settings: Settings, topic: str, records: Iterable[tuple[bytes, bytes, Headers]]) -> None:
    """Each record, of key, value and headers, on the partition of its key, all acknowledged."""
    partitions = streams().topics[topic].partitions
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, max_batch_size=BATCH_BYTES)
    await producer.start()
    try:
        under_way: set[asyncio.Future[Any]] = set()
        left = iter(records)
        while rows := list(islice(left, CHUNK)):
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
                    under_way.add(await producer.send_batch(batch, settings.named(topic), partition=partition))
                    if len(under_way) >= UNDER_WAY:
                        done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                        for one in done:
                            one.result()
        await asyncio.gather(*under_way)
    finally:
        await producer.stop()
