"""The seen ids of the partitions that this worker counts, shared by its projections, refilled from the log when one is taken over."""

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import timedelta

import structlog

from agents.aside import aside
from agents.folding import PassedOver
from agents.handover import Partition
from agents.log_reader import LogReader, OpenLog, log_of
from agents.metrics import SEEN_IDS_REFILL_SECONDS
from agents.reading import read_records
from compose.settings import Settings
from projections.counting import SeenIds
from schemas.columns import Events
from schemas.events import VideoViewed
from schemas.records import Record
from schemas.streams import Streams

logger = structlog.get_logger(__name__)


async def nothing_passed_over(partition: Partition, from_offset: int, to_offset: int) -> Collection[int]:
    """For who folds every record that can be folded."""
    return ()


class SeenIdsOfWorker:
    """One window a partition, held as long as any projection of this worker reads it."""

    def __init__(self, once_within: dict[str, timedelta], partitions: dict[str, int], open_log: OpenLog) -> None:
        self._once_within = once_within
        self._partitions = partitions
        self._open_log = open_log
        self._shared: dict[Partition, SeenIds] = {}
        self._own: dict[tuple[str, Partition], SeenIds] = {}
        self._users: dict[Partition, set[str]] = {}
        self._filling: dict[Partition, asyncio.Lock] = {}

    def hold(self, projection: str, partition: Partition) -> None:
        """`projection` reads the partition from now on."""
        self._users.setdefault(partition, set()).add(projection)

    def release(self, projection: str, partition: Partition) -> None:
        """`projection` reads it no more; the last one takes the window with it."""
        self._own.pop((projection, partition), None)
        users = self._users.get(partition, set())
        users.discard(projection)
        if not users:
            self._users.pop(partition, None)
            self._shared.pop(partition, None)

    @property
    def ids(self) -> int:
        """How many are held."""
        return sum(len(window) for window in (*self._shared.values(), *self._own.values()))

    @property
    def nbytes(self) -> int:
        """About what they take."""
        return sum(window.nbytes for window in (*self._shared.values(), *self._own.values()))

    async def window(
        self, projection: str, partition: Partition, from_offset: int, passed_over: PassedOver = nothing_passed_over
    ) -> SeenIds:
        """The window that judges the partition from `from_offset` on.

        Projections share it. One that lags by more than the window remembers has its own until it has caught up. What was `passed_over`,
        because it was parked, took no id.
        """
        async with self._filling.setdefault(partition, asyncio.Lock()):
            shared = self._shared.get(partition)
            if shared is not None and shared.answers_from <= from_offset:
                self._own.pop((projection, partition), None)
                return await self._extended(shared, partition, from_offset, passed_over)
            own = self._own.get((projection, partition))
            if own is not None and own.answers_from <= from_offset:
                return await self._extended(own, partition, from_offset, passed_over)
            filled = await self._filled(partition, from_offset, passed_over)
            if shared is None:
                self._shared[partition] = filled
            else:
                self._own[projection, partition] = filled
            return filled

    async def _filled(self, partition: Partition, from_offset: int, passed_over: PassedOver) -> SeenIds:
        began = time.monotonic()
        once_within = self._once_within[partition.topic]
        async with self._open_log(partition) as log:
            first_ms = await log.time_at(from_offset)
            start = from_offset
            if first_ms is not None and from_offset > 0:
                start = min(from_offset, await log.offset_at(first_ms - round(once_within.total_seconds() * 1_000)))
            seen = SeenIds(once_within, start_offset=start)
            await self._judge(seen, log, start, from_offset, passed_over)
        # What lies before was read only to remember its ids, and its own verdicts rest on too little.
        seen.answers_from = from_offset
        SEEN_IDS_REFILL_SECONDS.observe(time.monotonic() - began)
        if from_offset > start:
            logger.info(
                "refilled the seen ids",
                partition=str(partition),
                records=from_offset - start,
                ids=len(seen),
                seconds=round(time.monotonic() - began, 3),
            )
        return seen

    async def _extended(
        self, seen: SeenIds, partition: Partition, from_offset: int, passed_over: PassedOver
    ) -> SeenIds:
        """`seen`, having judged everything before `from_offset`; nobody read that stretch through it."""
        if seen.judged_to < from_offset:
            async with self._open_log(partition) as log:
                await self._judge(seen, log, seen.judged_to, from_offset, passed_over)
        return seen

    async def _judge(
        self, seen: SeenIds, log: LogReader, from_offset: int, to_offset: int, passed_over: PassedOver
    ) -> None:
        passed = await passed_over(log.partition, from_offset, to_offset) if from_offset < to_offset else ()
        async for records in log.read(from_offset, to_offset):
            await aside(self._judge_records, seen, log.partition, records, passed)
        seen.judged_to = max(seen.judged_to, to_offset)

    def _judge_records(
        self, seen: SeenIds, partition: Partition, records: Sequence[Record], passed: Collection[int]
    ) -> None:
        decoded = read_records(records, partition, self._partitions[partition.topic]).decoded
        seen.refusals(Events.of(decoded).besides(passed).of_type(VideoViewed.type))


def seen_ids(settings: Settings, streams: Streams) -> SeenIdsOfWorker:
    """None seen yet, to be refilled from this system's log."""
    once_within = {name: topic.once_within for name, topic in streams.topics.items() if topic.once_within}
    partitions = {name: topic.partitions for name, topic in streams.topics.items()}
    return SeenIdsOfWorker(once_within, partitions, log_of(settings))
