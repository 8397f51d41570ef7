"""The reactor that makes uploaded films playable: one claimed job from its source to its last event."""

import asyncio
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from agents.media.checking import WrongResult
from agents.media.leases import ClaimLost, Hold, Job, Leases
from agents.media.making import job_directory, make
from agents.media.playlists import Variant
from agents.media.probe import Rejected
from agents.media.publishing import Film, publish, variant_of
from agents.media.sandbox import Sandbox
from compose.log import EventLog, LogUnavailable
from compose.storage import NoSuchObject, Storage, StorageUnavailable
from projections.sinks.sink import StoreUnavailable
from schemas.events import Event, RenditionPublished, TranscodeFailed, TranscodeProgressed, VideoTranscoded
from schemas.events import Variant as PublishedVariant

MOST_ATTEMPTS = 3
PROGRESS_STEP = 0.05  # of the work, between two progress events
PROGRESS_SECONDS = 1.0
CLEANING_SECONDS = 20.0
RETRY_SECONDS = 1.0

logger = structlog.get_logger(__name__)


class Transcoder:
    """Takes claimed jobs to their end. What it says in the log carries the claim, so that a late word of an old claim changes nothing."""

    def __init__(
        self, storage: Storage, log: EventLog, leases: Leases, sandbox: Sandbox, scratch: Path, preset: str
    ) -> None:
        self._storage = storage
        self._log = log
        self._leases = leases
        self._sandbox = sandbox
        self._scratch = scratch
        self._preset = preset

    async def work_on(self, job: Job) -> None:
        """Make the film playable, or say why it cannot be. Raises ClaimLost, StorageUnavailable, OSError and what Postgres raises."""
        if job.attempts > MOST_ATTEMPTS:
            reason = f"Converting this film was begun {MOST_ATTEMPTS} times and broke off each time. Upload it again in another format."
            await self._conclude(job, self._failure(job, reason))
            return
        attempt = f"{job.claim}-{secrets.token_hex(3)}"
        prefix = f"videos/{job.video_id}/hls/{attempt}"
        announced = False
        try:
            async with job_directory(self._scratch, f"{job.video_id}-{attempt}", job.size) as folder:
                film = await self._make(job, attempt, folder)
                await publish(self._storage, prefix, film, lambda variant: self._say_published(job, prefix, variant))
                announced = True
                await self._conclude(job, _transcoded(job, prefix, film))
                logger.info("the film plays", video_id=job.video_id, claim=job.claim, prefix=prefix)
        except Rejected as rejected:
            await self._conclude(job, self._failure(job, rejected.reason))
        except NoSuchObject:
            await self._conclude(
                job, self._failure(job, "The uploaded file is no longer in the store. Upload it again.")
            )
        except WrongResult as wrong:
            logger.exception("the result is wrong", video_id=job.video_id, claim=job.claim)
            await self._conclude(job, self._failure(job, f"This film could not be converted correctly: {wrong}."))
        finally:
            # Once its event may be in the log, a prefix is somebody's film.
            if not announced:
                await asyncio.shield(self._drop(prefix))

    async def _make(self, job: Job, attempt: str, folder: Path) -> Film:
        progress = Progress(job, attempt, self._log)
        reporting = asyncio.create_task(progress.report())
        try:
            await self._storage.get_to_file(job.source_key, folder / "source")
            return await make(self._sandbox, folder, attempt, self._preset, progress.reach)
        finally:
            reporting.cancel()
            await asyncio.wait([reporting])

    async def _say_published(self, job: Job, prefix: str, variant: Variant) -> None:
        published = RenditionPublished(
            **_published(variant).model_dump(),
            video_id=job.video_id,
            claim=job.claim,
            prefix=prefix,
            occurred_at=datetime.now(UTC),
        )
        await self._append(published, f"{prefix}/{variant.quality}")

    def _failure(self, job: Job, reason: str) -> TranscodeFailed:
        logger.warning("the film cannot be played", video_id=job.video_id, claim=job.claim, reason=reason)
        return TranscodeFailed(video_id=job.video_id, claim=job.claim, reason=reason, occurred_at=datetime.now(UTC))

    async def _conclude(self, job: Job, event: Event) -> None:
        """The last word on a job, if it is still ours. Raises ClaimLost."""
        if (hold := await self._hold_of(job)) is not Hold.HELD:
            raise ClaimLost(hold)
        await self._append(event, f"{job.video_id}/{job.claim}/concluded")
        await self._leases.finish(job)

    async def _hold_of(self, job: Job) -> Hold:
        """Asked until it is answered: a database that is away for a while must not cost a finished film."""
        while True:
            try:
                return await self._leases.renew(job)
            except StoreUnavailable as error:
                logger.warning("the leases are away", video_id=job.video_id, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _append(self, event: Event, event_id: str) -> None:
        """Say it until it is heard; said twice, it is the same event. Whoever has lost the claim is cancelled while trying."""
        while True:
            try:
                await self._log.append(event, event_id=event_id)
                return
            except LogUnavailable as unavailable:
                logger.warning("the log is away", video_id=event.key, error=str(unavailable))
                await asyncio.sleep(unavailable.retry_after_seconds)

    async def _drop(self, prefix: str) -> None:
        with suppress(StorageUnavailable, TimeoutError):
            async with asyncio.timeout(CLEANING_SECONDS):
                await self._storage.delete_prefix(f"{prefix}/")


class Progress:
    """How far one attempt is: told often by the work, said in the log rarely."""

    def __init__(self, job: Job, attempt: str, log: EventLog) -> None:
        self._job = job
        self._attempt = attempt
        self._log = log
        self._reached = 0.0
        self._moved = asyncio.Event()
        self._moved.set()

    def reach(self, share: float) -> None:
        """`share` of the work, 0 to 1, is done."""
        self._reached = max(self._reached, share)
        self._moved.set()

    async def report(self) -> None:
        """Say it at the beginning, and then at most once a second, when a twentieth more is done. Never ends by itself."""
        said = -1.0
        while True:
            await self._moved.wait()
            self._moved.clear()
            if (share := round(self._reached, 2)) < said + PROGRESS_STEP:
                continue
            event = TranscodeProgressed(
                video_id=self._job.video_id, claim=self._job.claim, progress=share, occurred_at=datetime.now(UTC)
            )
            # Nothing hangs on it: the next one says more.
            with suppress(LogUnavailable):
                await self._log.append(event, event_id=f"{self._job.video_id}/{self._attempt}/{share}")
            said = share
            await asyncio.sleep(PROGRESS_SECONDS)


def _published(variant: Variant) -> PublishedVariant:
    return PublishedVariant(
        quality=variant.quality, width=variant.width, height=variant.height, bandwidth=variant.bandwidth
    )


def _transcoded(job: Job, prefix: str, film: Film) -> VideoTranscoded:
    best = film.renditions[0].rung
    variants = [_published(variant_of(rendition, film.plan)) for rendition in film.renditions]
    passport: dict[str, Any] = film.passport
    return VideoTranscoded(
        video_id=job.video_id,
        claim=job.claim,
        prefix=prefix,
        duration_seconds=film.plan.duration_seconds,
        width=best.width,
        height=best.height,
        variants=variants,
        thumbnail=film.thumbnail,
        storyboard=film.storyboard,
        passport=passport,
        occurred_at=datetime.now(UTC),
    )
