"""The seen ids of the partitions that this worker counts, shared by its projections, refilled from the log when one is taken over."""

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import timedelta

import structlog

from agents.aside import aside
from agents.folding import END_OF_LOG, PassedOver
from agents.handover import Partition
from agents.log_reader import LogReader, OpenLog, log_of
from agents.metrics import SEEN_IDS_REFILL_SECONDS
from agents.reading import read_records
from compose.settings import Settings
from projections.counting import SeenIds
from schemas.columns import Events
from schemas.events import VideoViewed
from schemas.log import MILLISECOND
from schemas.records import Record
from schemas.streams import Streams

logger = structlog.get_logger(__name__)

Reading = tuple[str, Partition]
"""A projection that reads a partition."""


async def nothing_passed_over(partition: Partition, from_offset: int, to_offset: int) -> Collection[int]:
    """For who folds every record that can be folded."""
    return ()


class SeenIdsOfWorker:
    """One window a partition, held as long as any projection of this worker reads it.

    A projection that passed over views which others folded, as they were parked by it alone, stands apart: it has a window of its own.
    """

    def __init__(self, once_within: dict[str, timedelta], partitions: dict[str, int], open_log: OpenLog) -> None:
        self._once_within = once_within
        self._partitions = partitions
        self._open_log = open_log
        self._shared: dict[Partition, SeenIds] = {}
        self._own: dict[Reading, SeenIds] = {}
        self._apart: dict[Reading, frozenset[int]] = {}  # with what each had passed over when its window was filled
        self._looked: set[Reading] = set()
        self._users: dict[Partition, set[str]] = {}
        self._filling: dict[Partition, asyncio.Lock] = {}

    def hold(self, projection: str, partition: Partition) -> None:
        """`projection` reads the partition from now on."""
        self._users.setdefault(partition, set()).add(projection)

    def release(self, projection: str, partition: Partition) -> None:
        """`projection` reads it no more; the last one takes the window with it."""
        self._stand_together((projection, partition))
        self._looked.discard((projection, partition))
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

    def passes_over(self, projection: str, partition: Partition) -> None:
        """`projection` does not fold some records that others may."""
        if (projection, partition) not in self._apart:
            self._looked.discard((projection, partition))

    def unfolded(self, projection: str, partition: Partition) -> None:
        """`projection` does not fold a record that its window has judged: what comes after it is to be judged anew."""
        self._looked.discard((projection, partition))

    async def window(
        self, projection: str, partition: Partition, from_offset: int, passed_over: PassedOver = nothing_passed_over
    ) -> SeenIds:
        """The window that judges the partition from `from_offset` on.

        Projections share it. One that lags by more than the window remembers has its own until it has caught up. What was `passed_over`,
        because it was parked, took no id.
        """
        async with self._filling.setdefault(partition, asyncio.Lock()):
            reading = projection, partition
            if reading not in self._looked:
                await self._look(reading, from_offset, passed_over)
                self._looked.add(reading)
            if reading not in self._apart:
                # What it passed over, if anything, lies further back than it has to remember.
                passed_over = nothing_passed_over
            shared = None if reading in self._apart else self._shared.get(partition)
            if shared is not None and shared.answers_from <= from_offset:
                self._own.pop(reading, None)
                return await self._extended(shared, partition, from_offset, passed_over)
            own = self._own.get(reading)
            if own is not None and own.answers_from <= from_offset:
                return await self._extended(own, partition, from_offset, passed_over)
            async with self._open_log(partition) as log:
                start = await self._start(log, from_offset)
                passed = await passed_over(partition, start, from_offset)
                filled, _ = await self._filled(log, start, from_offset, passed)
            if shared is None and reading not in self._apart:
                self._shared[partition] = filled
            else:
                self._own[reading] = filled
            return filled

    async def _look(self, reading: Reading, from_offset: int, passed_over: PassedOver) -> None:
        """Find out whether `reading` has to stand apart: whether a view is among what it passed over, as far back as a window remembers."""
        partition = reading[1]
        passed = frozenset(await passed_over(partition, 0, END_OF_LOG))
        if passed == self._apart.get(reading, frozenset()):
            return
        self._stand_together(reading)
        async with self._open_log(partition) as log:
            start = await self._start(log, from_offset)
            if all(offset < start for offset in passed):
                return
            filled, has_views = await self._filled(log, start, from_offset, passed)
        # What lies ahead has not been read, and may be a view.
        if has_views or any(offset >= from_offset for offset in passed):
            self._apart[reading] = passed
            self._own[reading] = filled
        else:
            self._shared.setdefault(partition, filled)

    def _stand_together(self, reading: Reading) -> None:
        self._own.pop(reading, None)
        self._apart.pop(reading, None)

    async def _start(self, log: LogReader, from_offset: int) -> int:
        """Where a window has to begin that is to judge from `from_offset` on."""
        first_ms = await log.time_at(from_offset) if from_offset > 0 else None
        if first_ms is None:
            return from_offset
        within_ms = self._once_within[log.partition.topic] // MILLISECOND
        return min(from_offset, await log.offset_at(first_ms - within_ms))

    async def _filled(
        self, log: LogReader, start: int, from_offset: int, passed: Collection[int]
    ) -> tuple[SeenIds, bool]:
        """A window that has seen [start, from_offset), and whether any of `passed` there is a view."""
        began = time.monotonic()
        seen = SeenIds(self._once_within[log.partition.topic], start_offset=start)
        has_views = await self._judge(seen, log, start, from_offset, passed)
        # What lies before was read only to remember its ids, and its own verdicts rest on too little.
        seen.answers_from = from_offset
        SEEN_IDS_REFILL_SECONDS.observe(time.monotonic() - began)
        if from_offset > start:
            logger.info(
                "refilled the seen ids",
                partition=str(log.partition),
                records=from_offset - start,
                ids=len(seen),
                seconds=round(time.monotonic() - began, 3),
            )
        return seen, has_views

    async def _extended(
        self, seen: SeenIds, partition: Partition, from_offset: int, passed_over: PassedOver
    ) -> SeenIds:
        """`seen`, having judged everything before `from_offset`; nobody read that stretch through it."""
        if seen.judged_to < from_offset:
            passed = await passed_over(partition, seen.judged_to, from_offset)
            async with self._open_log(partition) as log:
                await self._judge(seen, log, seen.judged_to, from_offset, passed)
        return seen

    async def _judge(
        self, seen: SeenIds, log: LogReader, from_offset: int, to_offset: int, passed: Collection[int]
    ) -> bool:
        """See what lies there, but for `passed`; whether a view is among them."""
        has_views = False
        async for records in log.read(from_offset, to_offset):
            has_views |= await aside(self._judge_records, seen, log.partition, records, passed)
        seen.judged_to = max(seen.judged_to, to_offset)
        return has_views

    def _judge_records(
        self, seen: SeenIds, partition: Partition, records: Sequence[Record], passed: Collection[int]
    ) -> bool:
        views = Events.of(read_records(records, partition, self._partitions[partition.topic]).decoded).of_type(
            VideoViewed.type
        )
        folded = views.besides(passed)
        seen.refusals(folded)
        return len(folded) < len(views)


def seen_ids(settings: Settings, streams: Streams) -> SeenIdsOfWorker:
    """None seen yet, to be refilled from this system's log."""
    once_within = {name: topic.once_within for name, topic in streams.topics.items() if topic.once_within}
    partitions = {name: topic.partitions for name, topic in streams.topics.items()}
    return SeenIdsOfWorker(once_within, partitions, log_of(settings))
