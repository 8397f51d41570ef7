"""Stretches of the log, read outside of any group: to refill what a worker remembers, and to replay what a command asks about."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.fetching import block_consumer, fetched
from agents.handover import Partition
from compose.settings import Settings
from projections.sinks.sink import StoreUnavailable
from schemas.records import Record

POLL_MS = 500


class LogReader:
    """Reads a stretch of one partition."""

    def __init__(self, partition: Partition, consumer: Any, topic_partition: Any) -> None:
        self.partition = partition
        self._consumer = consumer
        self._at = topic_partition

    async def time_at(self, offset: int) -> int | None:
        """The append time in milliseconds of the first record at `offset` or after; None when there is none yet."""
        async for records in self.read(offset, offset + 1, beyond=True):
            return int(records[0].timestamp)
        return None

    async def offset_at(self, time_ms: int) -> int:
        """The first offset recorded at `time_ms` or after; the end when there is none."""
        found = (await self._consumer.offsets_for_times({self._at: max(0, time_ms)}))[self._at]
        return int(found.offset) if found else await self.end()

    async def end(self) -> int:
        """The offset after the last record that a reader of committed records can reach."""
        return int((await self._consumer.end_offsets([self._at]))[self._at])

    async def read(self, from_offset: int, to_offset: int, *, beyond: bool = False) -> AsyncIterator[Sequence[Record]]:
        """Yields the records of [from_offset, to_offset), batch by batch; with `beyond` whatever comes first from there on."""
        self._consumer.seek(self._at, from_offset)
        end = await self.end()
        while await self._consumer.position(self._at) < (end if beyond else min(to_offset, end)):
            block = (await fetched(self._consumer, [self._at], timeout_ms=POLL_MS)).get(self._at)
            if block is not None and (wanted := block if beyond else block.before(to_offset)):
                yield wanted


OpenLog = Callable[[Partition], AbstractAsyncContextManager[LogReader]]


def log_of(settings: Settings) -> OpenLog:
    """Opens a reader of any partition of this system's log. What it yields raises StoreUnavailable when no broker answers."""

    @asynccontextmanager
    async def open_log(partition: Partition) -> AsyncIterator[LogReader]:
        at = TopicPartition(settings.named(partition.topic), partition.number)
        consumer = block_consumer(settings)
        try:
            await consumer.start()
            consumer.assign([at])
            # A consumer that is stopped before its own tasks have begun is cancelled by its own stop.
            await asyncio.sleep(0)
            yield LogReader(partition, consumer, at)
        except KafkaError as error:
            raise StoreUnavailable("kafka", str(error)) from error
        finally:
            await consumer.stop()

    return open_log
