"""A small log in memory, event by event as a test says it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from agents.decisions import DecisionsOfWorker
from agents.folding import Folding
from agents.handover import Batch, Partition
from agents.parking import Parking
from agents.ruling import View, Word, decision, mark
from agents.seen import SeenIdsOfWorker
from projections.projection import Projection
from projections.sinks.sink import LogIdentity, Sink
from schemas.envelope import encode
from schemas.events import Event
from schemas.log import Place, moment_of
from schemas.partitions import partition_of
from schemas.streams import DECISIONS, streams
from tests.logs import PartitionInMemory
from tests.records import Kept, kept

SMALL = streams().model_copy(
    update={
        "topics": {
            name: topic.model_copy(update={"partitions": min(2, topic.partitions)})
            for name, topic in streams().topics.items()
        }
    }
)
"""The map of the system with two partitions a topic: a replay of it is quick."""
BUGGY = 3  # partitions of views that a release with a bug believes in: some keys it takes for strays
START = datetime(2026, 2, 27, 21, 30, tzinfo=UTC)  # so that a few hours cross a day and a month
LOG = LogIdentity("cluster", "topic", 2)


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

    def append(self, event: Event, at: datetime, *, recorded_at: datetime | None = None, spoilt: bool = False) -> Kept:
        """Append `event`, stamped `at`; one that is copied from an older topic says when it was `recorded_at` there.

        One that is `spoilt` is poison that still names its film.
        """
        message = encode(event, event_id=event.key, source="/tests")
        headers = [*message.headers]
        if recorded_at is not None:
            headers.append(("ce_recordedtime", recorded_at.isoformat().encode()))
        partition = Partition(event.topic, partition_of(message.key, SMALL.topics[event.topic].partitions))
        records = self._records[partition]
        record = kept(
            message._replace(headers=headers, value=message.value[: -1 if spoilt else None]),
            partition=partition.number,
            offset=len(records),
            timestamp=round(at.timestamp() * 1_000),
        )
        records.append(record)
        return record

    async def decide(self, word: Word, place: Place, reason: str, named: Sequence[str], *, marked: bool) -> None:
        """An operator decides about a record that `named` have parked, at START; a retry is `marked`, or one of old."""
        at = Partition(*place[:2])
        end = await self.partitions[at].end()
        event = decision(word, place, reason, named, end, "ops", "a bug", marked=marked)
        decided = self.append(event, START)
        if marked and word == "retry":
            record = self._records[at][place.offset]
            view = View((record.key or b"").decode(), moment_of(record.timestamp))
            self.append(mark(event, decided.offset, view), START)

    @asynccontextmanager
    async def open(self, partition: Partition) -> AsyncIterator[Any]:
        yield self.partitions[partition]


async def fold(
    log: SmallLog, projection: Projection, sink: Sink, pool: Any, *, share: float = 1.0, is_buggy: bool = False
) -> None:
    """That share of every partition from its checkpoint on, in one batch, as a worker folds; then the decisions, where it is all."""
    partitions = {name: topic.partitions for name, topic in SMALL.topics.items()}
    within = {name: topic.once_within for name, topic in SMALL.topics.items() if topic.once_within}
    if is_buggy:
        partitions["views"] = BUGGY
    seen = SeenIdsOfWorker(within, partitions, log.open)
    decisions = DecisionsOfWorker(log.open, partitions)
    folding = Folding(projection, sink, Parking(pool, projection), seen, partitions, decisions)
    for partition, held in sorted(log.partitions.items(), key=lambda item: item[0].topic == DECISIONS):
        if partition.topic in (projection.reads if share == 1 else projection.topics):
            place = (await sink.checkpoint(*partition, LOG)).place
            following = max(place.offset, round(len(held.records) * share))
            if records := held.records[place.offset : following]:
                await folding.fold(Batch(1, partition, place.offset, following, records))
