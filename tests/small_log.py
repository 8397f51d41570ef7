"""A small log in memory, event by event as a test says it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from agents.handover import Partition
from schemas.envelope import encode
from schemas.events import Event
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.logs import PartitionInMemory
from tests.records import Kept, kept

SMALL = streams().model_copy(
    update={"topics": {name: topic.model_copy(update={"partitions": 2}) for name, topic in streams().topics.items()}}
)
"""The map of the system with two partitions a topic: a replay of it is quick."""
START = datetime(2026, 2, 27, 21, 30, tzinfo=UTC)  # so that a few hours cross a day and a month


class SmallLog:
    """Every topic of `SMALL`."""

    def __init__(self) -> None:
        self.partitions: dict[Partition, PartitionInMemory] = {}
        self._records: dict[Partition, list[Kept]] = {}
        for topic, spec in SMALL.topics.items():
            for number in range(spec.partitions):
                partition = Partition(topic, number)
                records = self._records[partition] = []
                self.partitions[partition] = PartitionInMemory(partition, records)

    def append(self, event: Event, at: datetime, *, recorded_at: datetime | None = None) -> Kept:
        """Append `event`, stamped `at`; one that is copied from an older topic says when it was `recorded_at` there."""
        message = encode(event, event_id=event.key, source="/tests")
        headers = [*message.headers]
        if recorded_at is not None:
            headers.append(("ce_recordedtime", recorded_at.isoformat().encode()))
        partition = Partition(event.topic, partition_of(message.key, SMALL.topics[event.topic].partitions))
        records = self._records[partition]
        record = kept(
            message._replace(headers=headers),
            partition=partition.number,
            offset=len(records),
            timestamp=round(at.timestamp() * 1_000),
        )
        records.append(record)
        return record

    @asynccontextmanager
    async def open(self, partition: Partition) -> AsyncIterator[Any]:
        yield self.partitions[partition]
