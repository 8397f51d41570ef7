"""The seen ids of the partitions that this worker counts, shared by its projections, refilled from the log when one is taken over."""

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

import structlog

from agents.aside import aside
from agents.folding import PassedOver
from agents.handover import Partition
from agents.left import END_OF_LOG
from agents.log_reader import LogReader, OpenLog, log_of
from agents.metrics import SEEN_IDS_REFILL_SECONDS
from agents.reading import read_records
from compose.settings import Settings
from projections.counting import SeenIds
from schemas.columns import Events
from schemas.events import VideoViewed, ViewRetried
from schemas.log import MILLISECOND, Place
from schemas.records import Record
from schemas.streams import Streams

GO_BACK_RECORDS = 5_000  # about as far as a window that stands apart can go back without being filled anew

logger = structlog.get_logger(__name__)

Reading = tuple[str, Partition]
"""A projection that reads a partition."""


async def nothing_passed_over(partition: Partition, to_offset: int) -> Collection[int]:
    """For who folds every record that can be folded."""
    return ()


class SeenIdsOfWorker:
    """One window a partition, held as long as any projection of this worker reads it.

    A projection that passed over views, which others may have folded, stands apart: it has a window of its own, as long as a window
    remembers so far back. Where such a view was retried since, that window knows its id from there on. It has judged the view that its
    store refuses next before anybody knows: a twin of what it was a little earlier spares it to be filled anew each time.
    """

    def __init__(
        self,
        once_within: dict[str, timedelta],
        partitions: dict[str, int],
        open_log: OpenLog,
        *,
        go_back_records: int = GO_BACK_RECORDS,
    ) -> None:
        self._once_within = once_within
        self._partitions = partitions
        self._open_log = open_log
        self._go_back_records = go_back_records
        self._shared: dict[Partition, SeenIds] = {}
        self._own: dict[Reading, SeenIds] = {}
        self._earlier: dict[Reading, SeenIds] = {}  # of those that stand apart
        self._apart: dict[Reading, frozenset[int]] = {}  # with the views that each passed over
        self._looked: set[Reading] = set()
        self._passed: dict[
            Reading, tuple[frozenset[int], int]
        ] = {}  # all that each had passed over when it looked, and from where
        self._users: dict[Partition, set[str]] = {}
        self._filling: dict[Partition, asyncio.Lock] = {}

    def hold(self, projection: str, partition: Partition) -> None:
        """`projection` reads the partition from now on."""
        self._users.setdefault(partition, set()).add(projection)

    def release(self, projection: str, partition: Partition) -> None:
        """`projection` reads it no more; the last one takes the window with it."""
        reading = projection, partition
        self._looked.discard(reading)
        self._passed.pop(reading, None)
        self._apart.pop(reading, None)
        self._own.pop(reading, None)
        self._earlier.pop(reading, None)
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
        """About what they take; what a window shares with its twin is counted twice."""
        windows = (*self._shared.values(), *self._own.values(), *self._earlier.values())
        return sum(window.nbytes for window in windows)

    def passed(self, projection: str, partition: Partition) -> frozenset[int]:
        """The views that `projection` has passed over, or will, as far as it was last looked."""
        return self._apart.get((projection, partition), frozenset())

    def look_again(self, projection: str, partition: Partition) -> None:
        """What `projection` passes over may have changed: a window that has judged such a view does not serve it."""
        self._looked.discard((projection, partition))

    async def window(
        self, projection: str, partition: Partition, from_offset: int, passed_over: PassedOver = nothing_passed_over
    ) -> SeenIds:
        """The window that judges the partition from `from_offset` on.

        Projections share it. One that lags by more than the window remembers has its own until it has caught up. What was `passed_over`,
        because it was parked, took no id.
        """
        reading = projection, partition
        own = self._own.get(reading)
        if own is not None and max(self._apart.get(reading, ()), default=own.remembers_from) < own.remembers_from:
            self._looked.discard(reading)
            self._passed.pop(reading, None)
        if reading not in self._looked:
            await self._look(reading, from_offset, passed_over)
        if reading in self._apart:
            own = self._own.get(reading)
            if own is None or own.answers_from > from_offset:
                earlier = self._earlier.get(reading)
                if earlier is not None and earlier.answers_from <= from_offset:
                    own = earlier.twin()
                else:
                    own = await self._filled(partition, from_offset, passed_over)
                self._own[reading] = own
            await self._extended(own, partition, from_offset, passed_over)
            self._keep_twin(reading, own)
            return own
        async with self._filling.setdefault(partition, asyncio.Lock()):
            shared = self._shared.get(partition)
            if shared is not None and shared.answers_from <= from_offset:
                self._own.pop(reading, None)
                return await self._extended(shared, partition, from_offset, nothing_passed_over)
            own = self._own.get(reading)
            if own is not None and own.answers_from <= from_offset:
                return await self._extended(own, partition, from_offset, nothing_passed_over)
            filled = await self._filled(partition, from_offset, nothing_passed_over)
            if shared is None:
                self._shared[partition] = filled
            else:
                self._own[reading] = filled
            return filled

    async def _look(self, reading: Reading, from_offset: int, passed_over: PassedOver) -> None:
        """Find out whether `reading` has to stand apart."""
        partition = reading[1]
        # Said before: somebody may ask for another look meanwhile.
        self._looked.add(reading)
        try:
            passed = frozenset(await passed_over(partition, END_OF_LOG))
            before, looked_from = self._passed.get(reading, (None, 0))
            if passed == before and from_offset >= looked_from:
                return
            known = self._apart.get(reading, frozenset())
            views, start = frozenset[int](), 0
            if passed:
                async with self._open_log(partition) as log:
                    start = await window_start(log, from_offset, self._once_within[partition.topic])
                    views = await self._views_among(log, [offset for offset in passed if start <= offset < from_offset])
                # What lies ahead has not been read, and may be a view.
                views |= {offset for offset in passed if offset >= from_offset}
        except BaseException:
            self._looked.discard(reading)
            raise
        self._passed[reading] = passed, from_offset
        changed = views ^ {offset for offset in known if offset >= start}
        if changed:
            self._own.pop(reading, None)
        earlier = self._earlier.get(reading)
        if earlier is not None and (not views or min(changed, default=earlier.judged_to) < earlier.judged_to):
            del self._earlier[reading]
        if views:
            self._apart[reading] = views
        else:
            self._apart.pop(reading, None)
        users = self._users.get(partition)
        if users and all((user, partition) in self._apart for user in users):
            self._shared.pop(partition, None)

    def _keep_twin(self, reading: Reading, own: SeenIds) -> None:
        """`own` as it is now, in the place of one that is far behind."""
        earlier = self._earlier.get(reading)
        if earlier is None or own.judged_to - earlier.judged_to >= self._go_back_records:
            self._earlier[reading] = own.twin()

    async def _views_among(self, log: LogReader, offsets: Collection[int]) -> frozenset[int]:
        views: set[int] = set()
        in_a_row = groupby(enumerate(sorted(offsets)), lambda numbered: numbered[1] - numbered[0])
        for row in ([offset for _, offset in group] for _, group in in_a_row):
            async for records in log.read(row[0], row[-1] + 1):
                views |= set(self._events(records, log.partition).of_type(VideoViewed.type).offsets.tolist())
        return frozenset(views)

    async def _filled(self, partition: Partition, from_offset: int, passed_over: PassedOver) -> SeenIds:
        began = time.monotonic()
        async with self._open_log(partition) as log:
            start = await window_start(log, from_offset, self._once_within[partition.topic])
            seen = SeenIds(self._once_within[partition.topic], start_offset=start)
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
        passed = await passed_over(log.partition, to_offset) if from_offset < to_offset else ()
        async for records in log.read(from_offset, to_offset):
            await aside(self._judge_records, seen, log.partition, records, passed)
        seen.judged_to = max(seen.judged_to, to_offset)

    def _judge_records(
        self, seen: SeenIds, partition: Partition, records: Sequence[Record], passed: Collection[int]
    ) -> None:
        seen.refusals(with_retries_of(passed, self._events(records, partition).besides(passed)))

    def _events(self, records: Sequence[Record], partition: Partition) -> Events[Any]:
        return Events.of(read_records(records, partition, self._partitions[partition.topic]).decoded)


async def window_start(log: LogReader, from_offset: int, within: timedelta) -> int:
    """Where a window has to begin that is to judge from `from_offset` on."""
    first_ms = await log.time_at(from_offset) if from_offset > 0 else None
    if first_ms is None:
        return from_offset
    return min(from_offset, await log.offset_at(first_ms - within // MILLISECOND))


def with_retries_of(passed: Collection[int], events: Events[Any]) -> Events[Any]:
    """The same but for retries of views that were not passed over at their places: they took their ids there, or must not take any."""
    if ViewRetried.type not in events.types:
        return events
    idle = {
        offset
        for event, offset in zip(events.each, events.offsets.tolist(), strict=True)
        if isinstance(event, ViewRetried) and Place.of(event.record).offset not in passed
    }
    return events.besides(idle)


def seen_ids(settings: Settings, streams: Streams) -> SeenIdsOfWorker:
    """None seen yet, to be refilled from this system's log."""
    once_within = {name: topic.once_within for name, topic in streams.topics.items() if topic.once_within}
    partitions = {name: topic.partitions for name, topic in streams.topics.items()}
    return SeenIdsOfWorker(once_within, partitions, log_of(settings))
