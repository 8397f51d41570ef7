"""What keeps a partition from being read although no server is down: a transaction that nobody ends, a stranger in the group."""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from agents.strangers import Stranger, strangers_in
from agents.transactions import sentence

BLOCKED_SECONDS = 20.0  # far longer than a producer's transaction takes that is alive


class Blocked(NamedTuple):
    """A partition that stands at its last stable offset while records lie behind."""

    offset: int
    since: float
    behind: int


def who_is_in(group: str, members: Iterable[Stranger]) -> list[str]:
    """A sentence for each stranger in the group."""
    return [
        f"{member.client_id!r} at {member.host} is in the consumer group {group}, which is this projection's own, and was given "
        f"{', '.join(f'{at.topic}/{at.partition}' for at in member.given) or 'nothing yet'}: nobody else folds what it was given; "
        "stop it, or give it a group of its own"
        for member in members
    ]


class Hindrances:
    """Looks around for one projection's group; each sentence names the way out."""

    def __init__(self, bootstrap: str, group: str, *, blocked_seconds: float = BLOCKED_SECONDS) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._blocked_seconds = blocked_seconds
        self._blocked: dict[TopicPartition, Blocked] = {}

    async def transactions(self, consumer: Any, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        """For each partition that a transaction has held up for a while, which one. Raises KafkaError."""
        now = time.monotonic()
        found: dict[TopicPartition, Blocked] = {}
        for at, position in positions.items():
            stable, end = consumer.last_stable_offset(at), consumer.highwater(at)
            if stable is not None and end is not None and 0 <= stable <= position < end:
                before = self._blocked.get(at)
                since = before.since if before is not None and before.offset == stable else now
                found[at] = Blocked(stable, since, end - stable)
        self._blocked = found
        return {
            at: await self._sentence(at, blocked)
            for at, blocked in found.items()
            if now - blocked.since >= self._blocked_seconds
        }

    async def strangers(self) -> list[str]:
        """A sentence for each stranger. Raises KafkaError."""
        found = await strangers_in(self._bootstrap, self._group)
        told = who_is_in(self._group, found.members)
        if found.committed:
            at, offset = min(found.committed.items())
            told.append(
                f"somebody commits offsets to the consumer group {self._group} ({at.topic}/{at.partition} at {offset.offset:,}), which is "
                "this projection's own and never commits: nothing is lost by it, but find who reads in our name"
            )
        return told

    async def _sentence(self, at: TopicPartition, blocked: Blocked) -> str:
        since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - blocked.since)
        return await sentence(self._bootstrap, at, blocked.offset, behind=blocked.behind, since=since)
