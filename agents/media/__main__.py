"""`python -m agents.media`: works until TERM or INT, then gives back what it has claimed and ends."""

import asyncio
import os
import secrets
import signal
import socket
import sys

import structlog

from agents.media.leases import Leases, Work
from agents.media.sandbox import SandboxUnavailable, open_sandbox
from agents.media.scratch import scratch_directory
from agents.media.transcoder import Transcoder
from agents.media.worker import LOOK_SECONDS, TIDY_SECONDS, Tidying, Worker
from agents.status_page import status_page
from compose.connections import open_postgres
from compose.log import open_log
from compose.settings import Settings, WrongSetting, settings
from compose.storage import open_storage
from compose.telemetry import refuse_to_start, start_logging
from projections.queries.versions import open_versions

logger = structlog.get_logger(__name__)


async def work(settings: Settings) -> None:
    """Open what is needed and work until cancelled. Raises SandboxUnavailable: without a sandbox no film is read."""
    # The pid alone could be another's on another host, and in a container it is always the same.
    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    with scratch_directory() as scratch:
        sandbox = await open_sandbox(scratch)
        async with (
            open_postgres(settings, connections=2 * settings.media_slots + 5) as pool,
            open_versions(pool) as versions,
            open_storage(settings) as storage,
            open_log(settings, "/entertainmenttime/media") as log,
            status_page(settings.metrics_host, settings.media_metrics_port, waits_for=list),
        ):
            leases = Leases(pool, versions, name, settings.media_lease_seconds)
            transcoder = Transcoder(storage, log, leases, sandbox, scratch, settings.media_encode_preset)
            tidying = Tidying(storage, log, leases)
            logger.info("ready", worker=name, slots=settings.media_slots)
            await Worker(leases, settings.media_lease_seconds).run(
                [
                    *[(Work.TRANSCODE, transcoder.work_on, LOOK_SECONDS)] * settings.media_slots,
                    (Work.DELETE, tidying.delete, TIDY_SECONDS),
                    (Work.SETTLE, tidying.settle, TIDY_SECONDS),
                ]
            )


async def work_until_told(settings: Settings) -> None:
    """`work`, ended in order by TERM or INT."""
    working = asyncio.create_task(work(settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        logger.info("ended in order")


def main() -> int:
    """The exit status: 0 after TERM or INT, 2 with a sentence when it cannot work here."""
    try:
        start_logging(settings(), "media")
        asyncio.run(work_until_told(settings()))
    except (WrongSetting, SandboxUnavailable, PermissionError) as error:
        refuse_to_start(error, "media worker")
    return 0


if __name__ == "__main__":
    sys.exit(main())
