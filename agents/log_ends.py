"""Where the log ends just now, and when its records were appended: asked outside of any group, by who watches the lag."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from agents.handover import Partition
from compose.settings import Settings
from schemas.log import Place, moment_of

ASK_SECONDS = 10.0
READ_SECONDS = 3.0  # for the first records of some partitions, one each


class LogEnds:
    """Asks with one consumer of its own. Raises KafkaError or TimeoutError when no broker answers."""

    def __init__(self, settings: Settings, consumer: Any) -> None:
        self._settings = settings
        self._consumer = consumer

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The end of each, as a reader of committed records reaches it."""
        wanted = {self._at(partition): partition for partition in partitions}
        async with asyncio.timeout(ASK_SECONDS):
            ends = await self._consumer.end_offsets(list(wanted)) if wanted else {}
        return {wanted[at]: end for at, end in ends.items()}

    async def appended_at(self, places: Iterable[Place]) -> dict[Place, datetime]:
        """When the first record at each of `places`, or after it, was appended; a place of which nothing came in time is left out."""
        waiting: dict[Partition, list[Place]] = defaultdict(list)
        for place in sorted(set(places), reverse=True):
            waiting[Partition(place.topic, place.partition)].append(place)
        found: dict[Place, datetime] = {}
        while waiting:
            # A consumer has one position a partition, and projections are not all at the same.
            asked = {partition: left.pop() for partition, left in waiting.items()}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    await self._read_first(asked, found)
            waiting = {partition: left for partition, left in waiting.items() if left}
        return found

    async def _read_first(self, asked: dict[Partition, Place], found: dict[Place, datetime]) -> None:
        left = {self._at(partition): place for partition, place in asked.items()}
        self._consumer.assign(list(left))
        for at, place in left.items():
            self._consumer.seek(at, place.offset)
        while left:
            try:
                fetched = await self._consumer.getmany(*left, timeout_ms=100, max_records=1)
            except OffsetOutOfRangeError as error:
                for at in error.args[0]:
                    left.pop(at, None)
                continue
            for at, records in fetched.items():
                if records:
                    found[left.pop(at)] = moment_of(records[0].timestamp)
                    self._consumer.pause(at)

    def _at(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.named(partition.topic), partition.number)


@asynccontextmanager
async def open_log_ends(settings: Settings) -> AsyncIterator[LogEnds]:
    """Raises KafkaError when no broker answers."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="none",
        # One batch of a partition at a time: only the time of its first record is wanted.
        max_partition_fetch_bytes=1,
    )
    try:
        await consumer.start()
        yield LogEnds(settings, consumer)
    finally:
        with contextlib.suppress(KafkaError, OSError):
            await consumer.stop()
