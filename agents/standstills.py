"""Why partitions stand still, as the reader of one projection knows it: each reason is said once, and so is its end."""

from collections.abc import Mapping

import structlog

from agents.handover import Partition

logger = structlog.get_logger(__name__)


class Standstills:
    """`refusals` are the sentences for which a partition stands until an operator helps; every other reason passes by itself."""

    def __init__(self, projection: str) -> None:
        self.refusals: dict[Partition, str] = {}
        self._projection = projection
        self._held_up: dict[Partition, str] = {}  # by a store that is down
        self._unread: dict[Partition, str] = {}  # their checkpoints
        self._unplaced: set[Partition] = set()  # of those, whose place in the log Kafka did not tell
        self._waits: dict[Partition, str] = {}  # for another partition of the same projection
        self._halted: set[Partition] = set()  # as too much of them is parked, until a batch of theirs is applied
        self._blocked: set[Partition] = set()  # by a transaction that nobody ends

    def reason(self, partition: Partition) -> str | None:
        """What it waits for by itself, in words."""
        return self._held_up.get(partition) or self._unread.get(partition) or self._waits.get(partition)

    def blames_kafka(self, partition: Partition) -> bool:
        """Whether its reason is that Kafka does not answer."""
        return partition in self._unplaced and partition not in self._held_up

    def refused(self, partition: Partition, why: str) -> None:
        """Only an operator helps."""
        if self.refusals.get(partition) != why:
            logger.error("a partition stands still", projection=self._projection, why=why)
        self.refusals[partition] = why

    def halted(self, partition: Partition) -> None:
        """Too much of it is parked."""
        self._halted.add(partition)

    def unavailable(self, partition: Partition, why: str) -> None:
        """Its store is down. The first that meets it says so."""
        if not self._held_up:
            logger.warning("a store is unavailable", projection=self._projection, why=why)
        self._held_up[partition] = why

    def waits(self, partition: Partition, why: str) -> None:
        """Another partition has to come first."""
        self._waits[partition] = why

    def unread(self, partition: Partition, why: str, *, attempt: int, by_kafka: bool) -> None:
        """Its checkpoint cannot be read, or not be placed in the log, as a store or Kafka does not answer."""
        if attempt == 0:
            logger.warning(
                "a checkpoint cannot be read", projection=self._projection, partition=str(partition), why=why
            )
        self._unread[partition] = why
        (self._unplaced.add if by_kafka else self._unplaced.discard)(partition)

    def read(self, partition: Partition) -> None:
        """Its checkpoint is read."""
        self._unread.pop(partition, None)
        self._unplaced.discard(partition)

    def applied(self, partition: Partition) -> None:
        """A batch of it is in the store: nothing of all that holds any more."""
        if self._held_up.pop(partition, None) and not self._held_up:
            logger.info("the store is back", projection=self._projection)
        self._waits.pop(partition, None)
        self._halted.discard(partition)
        self._goes_on(partition)

    def resumed(self, partition: Partition) -> None:
        """It is fetched again, which ends a refusal, but for one that only a batch can end."""
        if partition not in self._halted:
            self._goes_on(partition)

    def blocked(self, found: Mapping[Partition, str]) -> None:
        """These are held up by a transaction that nobody ends, and no others."""
        for partition in self._blocked - found.keys():
            self._goes_on(partition)
        for partition, why in found.items():
            if partition not in self._blocked:
                logger.error("a partition stands still", projection=self._projection, why=why)
            self.refusals[partition] = why
        self._blocked = set(found)

    def forget(self, partition: Partition) -> None:
        """Another reads it now."""
        self.refusals.pop(partition, None)
        for marked in (self._halted, self._unplaced):
            marked.discard(partition)
        for reasons in (self._held_up, self._unread, self._waits):
            reasons.pop(partition, None)

    def _goes_on(self, partition: Partition) -> None:
        if self.refusals.pop(partition, None):
            logger.info("a partition goes on", projection=self._projection, partition=str(partition))
