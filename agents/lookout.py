"""What no server says by itself, looked for every few seconds on behalf of one reader."""

from contextlib import suppress
from typing import Any

import structlog
from aiokafka import TopicPartition

from agents.decisions import HOME
from agents.handover import Command, Handover, Partition
from agents.hindrances import Hindrances
from agents.standstills import Standstills
from compose.settings import Settings
from projections.projection import Projection
from projections.sinks.sink import Sink, StoreUnavailable

logger = structlog.get_logger(__name__)


class Lookout:
    """`strangers` are sentences about whoever reads in the reader's name."""

    def __init__(
        self,
        settings: Settings,
        projection: Projection,
        sink: Sink,
        handover: Handover,
        standstills: Standstills,
        *,
        blocked_seconds: float,
    ) -> None:
        self.strangers: list[str] = []
        self._decided_to = 0
        self._settings = settings
        self._projection = projection
        self._sink = sink
        self._handover = handover
        self._standstills = standstills
        self._hindrances = Hindrances(
            settings.kafka_bootstrap, settings.named(projection.full_name), blocked_seconds=blocked_seconds
        )

    async def look(self, consumer: Any) -> list[Command]:
        """What is to be done. Raises KafkaError, OSError; a store that is away is looked at another time."""
        with suppress(StoreUnavailable):
            if commands := await self._look_at_the_store():
                return commands
        await self._look_for_transactions(consumer)
        await self.look_for_strangers()
        return []

    async def look_for_strangers(self) -> None:
        """Raises KafkaError, OSError."""
        found = await self._hindrances.strangers()
        for why in found:
            if why not in self.strangers:
                logger.error("somebody reads in our name", projection=self._projection.name, why=why)
        self.strangers = found

    async def _look_for_transactions(self, consumer: Any) -> None:
        reading = {TopicPartition(self._settings.named(p.topic), p.number): p for p in self._handover.reading()}
        positions = {
            at: progress.next_offset
            for at, partition in reading.items()
            if (progress := self._handover.progress(partition)) and progress.next_offset is not None
        }
        found = await self._hindrances.transactions(consumer, positions)
        self._standstills.blocked({reading[at]: why for at, why in found.items()})

    async def _look_at_the_store(self) -> list[Command]:
        """Whether it was emptied or restored: where records come, who writes finds the checkpoint moved, but nobody does at rest. And what
        was decided, perhaps by another worker, may hold back what is read here."""
        before, self._decided_to = self._decided_to, await self._next_offset(HOME)
        if self._decided_to < before:
            return self._begun_anew(HOME, before, self._decided_to)
        for partition, at_rest in self._handover.at_rest().items():
            found = await self._next_offset(partition)
            if found < at_rest[1] and self._handover.at_rest().get(partition) == at_rest:
                return self._begun_anew(partition, at_rest[1], found)
        return []

    async def _next_offset(self, partition: Partition) -> int:
        return (await self._sink.newest_step(*partition)).next_offset

    def _begun_anew(self, partition: Partition, was: int, found: int) -> list[Command]:
        logger.warning(
            "the store went back, and is folded on from where it is",
            projection=self._projection.full_name,
            partition=str(partition),
            was=was,
            found=found,
        )
        return list(self._handover.went_back())
