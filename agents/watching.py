"""A worker's eyes on itself: every few seconds, where each of its partitions stands, for metrics, for `lag`, for the watchdog."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from agents.handover import Partition
from agents.log_ends import LogEnds, open_log_ends
from agents.metrics import CHECKPOINT, LAG_EVENTS, LAG_SECONDS, PARTITIONS, SEEN_IDS, SEEN_IDS_BYTES
from agents.readers import write_readers
from agents.seen import SeenIdsOfWorker
from agents.standing import Judged, Standing
from agents.watchdog import Watchdog, silent
from compose.settings import Settings
from projections.sinks.sink import StoreUnavailable
from schemas.log import Place, moment_of

LOOK_SECONDS = 3.0
STATES = ("healthy", "behind", "stuck")

logger = structlog.get_logger(__name__)


class Watching:
    """`standings` tells where the worker's partitions stand. `judged` is what was seen last."""

    def __init__(
        self,
        settings: Settings,
        pool: Any,
        seen: SeenIdsOfWorker,
        standings: Callable[[], Sequence[Standing]],
        watchdog: Watchdog,
    ) -> None:
        self.judged: list[Judged] = []
        self._settings = settings
        self._pool = pool
        self._seen = seen
        self._standings = standings
        self._watchdog = watchdog
        self._ends: dict[Partition, int] = {}
        self._name = settings.worker_id or f"{socket.gethostname()}:{os.getpid()}"

    async def run(self, act: Callable[[list[Judged]], Awaitable[None]]) -> None:
        """Look again and again, until cancelled; `act` is told of what stands still for no reason that its reader knows.

        While no broker says where the log ends, it ends where it did last, and nobody is told to act: who waits for the broker is right.
        """
        was_away = False
        while True:
            try:
                async with open_log_ends(self._settings) as log:
                    while True:
                        appended = await self._ask(log)
                        if was_away:
                            # Whoever waited for the broker has its time to move anew.
                            self._watchdog.keep([])
                            was_away = False
                        await self._look(appended)
                        await act(silent(self.judged))
                        await asyncio.sleep(LOOK_SECONDS)
            except (KafkaError, TimeoutError, OSError) as error:
                logger.debug("the end of the log is not known", why=str(error))
                was_away = True
                await self._look({})
                await asyncio.sleep(LOOK_SECONDS)

    async def _ask(self, log: LogEnds) -> Mapping[Place, datetime]:
        standings = self._standings()
        self._ends |= await log.ends({standing.partition for standing in standings})
        # Most are at hand; the log is read for those that have nothing in hand, and only while they are behind.
        return await log.appended_at(
            Place(*standing.partition, standing.progress.next_offset)
            for standing in standings
            if standing.progress.appended_ms is None
            and standing.progress.next_offset is not None
            and standing.progress.next_offset < self._ends[standing.partition]
        )

    async def _look(self, appended: Mapping[Place, datetime]) -> None:
        standings = self._standings()
        self._watchdog.keep(standings)
        self.judged = [
            self._watchdog.judge(standing, self._ends.get(standing.partition, 0), _appended_at(standing, appended))
            for standing in standings
        ]
        await self._tell()

    async def _tell(self) -> None:
        show(self.judged)
        SEEN_IDS.set(self._seen.ids)
        SEEN_IDS_BYTES.set(self._seen.nbytes)
        try:
            await write_readers(self._pool, self._name, self.judged)
        except StoreUnavailable as unavailable:
            logger.debug("who reads what is not told", why=str(unavailable))


def _appended_at(standing: Standing, found: Mapping[Place, datetime]) -> datetime | None:
    next_offset, appended_ms, _ = standing.progress
    if appended_ms is not None:
        return moment_of(appended_ms)
    return None if next_offset is None else found.get(Place(*standing.partition, next_offset))


def show(judged: Iterable[Judged]) -> None:
    """What is measured now, and nothing of what another worker reads by now."""
    for gauge in (LAG_EVENTS, LAG_SECONDS, CHECKPOINT, PARTITIONS):
        gauge.clear()
    for one in judged:
        standing = one.standing
        labels = (standing.projection, str(standing.version), standing.partition.topic, str(standing.partition.number))
        if one.lag_events is not None:
            LAG_EVENTS.labels(*labels).set(one.lag_events)
        if one.lag_seconds is not None:
            LAG_SECONDS.labels(*labels).set(one.lag_seconds)
        if standing.progress.next_offset is not None:
            CHECKPOINT.labels(*labels).set(standing.progress.next_offset)
        for state in STATES:
            PARTITIONS.labels(*labels[:2], state).inc(state == one.state)
