"""All the deliveries of one worker: each subscription that nobody else delivers to, side by side."""

import asyncio
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from agents.webhooks.claims import Claimed, Claims
from agents.webhooks.delivery import Delivery
from compose.outgoing import Outgoing, open_outgoing
from compose.settings import Settings
from projections.sinks.sink import StoreUnavailable

LOOK_SECONDS = 1.0  # between two looks for a subscription that nobody delivers to
AGAIN_SECONDS = 5.0  # after an error of ours, or with a server away

logger = structlog.get_logger(__name__)


class Delivering:
    """Claims subscriptions and delivers, each in a task of its own: one that is slow or dead holds no other up."""

    def __init__(self, settings: Settings, claims: Claims, outgoing: Outgoing) -> None:
        self._settings = settings
        self._claims = claims
        self._outgoing = outgoing
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; then what was delivered is written down and every claim given back."""
        try:
            while True:
                try:
                    while claimed := await self._claims.claim():
                        task = asyncio.create_task(self._deliver(claimed))
                        self._running.add(task)
                        task.add_done_callback(self._running.discard)
                except StoreUnavailable as unavailable:
                    logger.debug("no webhook can be looked for", why=str(unavailable))
                except Exception:
                    # Others fold in this process: a fault of ours in here ends nothing of theirs.
                    logger.exception("webhooks cannot be looked for")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _deliver(self, claimed: Claimed) -> None:
        try:
            await Delivery(self._settings, self._claims, claimed, self._outgoing).run()
        except (StoreUnavailable, KafkaError, OSError) as away:
            logger.info("a webhook waits for a server", webhook=claimed.id, why=str(away))
            await asyncio.sleep(AGAIN_SECONDS)
        except Exception:
            # This delivery alone ends, until its lease is over.
            logger.exception("a webhook's delivery failed", webhook=claimed.id)
            await asyncio.sleep(AGAIN_SECONDS)


async def deliver(settings: Settings, pool: Any, worker: str) -> None:
    """Deliver until cancelled."""
    async with open_outgoing(settings) as outgoing:
        await Delivering(settings, Claims(pool, worker), outgoing).run()
