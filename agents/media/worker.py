"""The media worker: slots that claim work, keep their claims alive, and give them back when they cannot go on."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic

import structlog

from agents.media.leases import ClaimLost, Hold, Job, Leases, Work
from agents.media.metrics import JOB_SECONDS, JOBS, JOBS_RUNNING
from agents.media.sandbox import SandboxUnavailable
from compose.log import EventLog, LogUnavailable
from compose.storage import Storage, StorageUnavailable
from projections.sinks.sink import StoreUnavailable
from schemas.events import UploadAborted, VideoUploaded

LOOK_SECONDS = 0.5  # between two looks for work, when there was none
TIDY_SECONDS = 2.0  # the same, for work that nobody waits for
RETRY_SECONDS = 5.0
RENEWALS = 3  # in the life of a lease: two may fail
AWAY = (StoreUnavailable, LogUnavailable, SandboxUnavailable, StorageUnavailable)

logger = structlog.get_logger(__name__)

Doing = Callable[[Job], Awaitable[None]]


class Worker:
    """Does claimed work, each job under a lease that is renewed while it lasts."""

    def __init__(self, leases: Leases, lease_seconds: float) -> None:
        self._leases = leases
        self._renew_seconds = lease_seconds / RENEWALS

    async def run(self, slots: Iterable[tuple[Work, Doing, float]]) -> None:
        """Work until cancelled; each slot does one job at a time. Whatever nobody expects ends all of it."""
        async with asyncio.TaskGroup() as group:
            for work, doing, look_seconds in slots:
                group.create_task(self._slot(work, doing, look_seconds))

    async def _slot(self, work: Work, doing: Doing, look_seconds: float) -> None:
        told = False
        while True:
            try:
                job = await self._leases.claim(work)
            except AWAY as error:
                if not told:
                    logger.warning("no work can be found for now", work=work.kind, error=repr(error))
                    told = True
                await asyncio.sleep(look_seconds)
                continue
            told = False
            if job is None:
                await asyncio.sleep(look_seconds * random.uniform(0.8, 1.2))
            else:
                await self.do(job, doing)

    async def do(self, job: Job, doing: Doing) -> None:
        """One job to its end. Cancelled, or with a server away, it is given back; taken over by another, it is dropped."""
        logger.info("claimed", work=job.work.kind, video_id=job.video_id, claim=job.claim, attempts=job.attempts)
        outcome = "done"
        began = monotonic()
        JOBS_RUNNING.labels(job.work.kind).inc()
        try:
            await self._while_held(job, doing)
        except ClaimLost as lost:
            outcome = "dropped"
            logger.info("dropped", work=job.work.kind, video_id=job.video_id, claim=job.claim, why=str(lost))
        except AWAY as error:
            outcome = "put_off"
            logger.warning("put off", work=job.work.kind, video_id=job.video_id, error=repr(error))
            with suppress(*AWAY):
                await self._leases.give_back(job, after_seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
        except asyncio.CancelledError:
            outcome = "given_back"
            with suppress(*AWAY):
                await asyncio.shield(self._leases.give_back(job))
            raise
        finally:
            JOBS_RUNNING.labels(job.work.kind).dec()
            JOBS.labels(job.work.kind, outcome).inc()
            JOB_SECONDS.labels(job.work.kind).observe(monotonic() - began)

    async def _while_held(self, job: Job, doing: Doing) -> None:
        working = asyncio.ensure_future(doing(job))
        holding = asyncio.create_task(self._hold(job))
        try:
            await asyncio.wait([working, holding], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # A job that ended, well or not, has the word; else it is stopped, and has cleaned up when this goes on.
            over = working.done()
            for task in (holding, working):
                task.cancel()
            await asyncio.gather(working, holding, return_exceptions=True)
        if over:
            await working
        else:
            await holding

    async def _hold(self, job: Job) -> None:
        """Renew the lease for ever. Raises ClaimLost. A database that is away ends nothing: the last word asks again."""
        while True:
            await asyncio.sleep(self._renew_seconds)
            with suppress(*AWAY):
                if (hold := await self._leases.renew(job)) is not Hold.HELD:
                    raise ClaimLost(hold)


class Tidying:
    """Reactors that nobody waits for: objects of deleted films go, uploads that never ended are settled."""

    def __init__(self, storage: Storage, log: EventLog, leases: Leases) -> None:
        self._storage = storage
        self._log = log
        self._leases = leases

    async def delete(self, job: Job) -> None:
        """Everything of a deleted film leaves the store, unfinished uploads too. Twice is once."""
        count = await self._storage.delete_prefix(f"videos/{job.video_id}/")
        await self._leases.finish(job)
        logger.info("deleted", video_id=job.video_id, objects=count)

    async def settle(self, job: Job) -> None:
        """An upload whose time is over: if its bytes are all there it was uploaded, else it was aborted.

        The ids are those that the gateway gives these events: had it said so already, this is the same event.
        """
        found = await self._storage.head(job.source_key)
        if found:
            uploaded = VideoUploaded(
                video_id=job.video_id,
                object_key=job.source_key,
                size=found.size,
                etag=found.etag or None,
                media_type=found.content_type,
                occurred_at=datetime.now(UTC),
            )
            await self._log.append(uploaded, event_id=f"{job.video_id}:uploaded")
        else:
            aborted = UploadAborted(video_id=job.video_id, reason="the upload expired", occurred_at=datetime.now(UTC))
            await self._log.append(aborted, event_id=f"{job.video_id}:aborted")
        await self._leases.finish(job)
