"""Whether the log can be read up to a moment: behind a transaction that nobody ends lies what nobody knows to be true."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.handover import Partition
from agents.transactions import sentence
from compose.log import BROKERS_CLOCKS
from compose.settings import Settings
from schemas.log import milliseconds_of

LEVELS = ("read_committed", "read_uncommitted")
PATIENCE_SECONDS = 5.0  # a producer that is alive ends its transactions far sooner
LOOK_AGAIN_SECONDS = 0.2


class NotSettled(Exception):
    """Something recorded by then cannot be read yet; the message names what stands in the way, and the way out."""


async def until_settled(settings: Settings, partitions: Iterable[Partition], moment: datetime) -> None:
    """Returns once everything that was recorded by `moment` on `partitions` can be read.

    Raises NotSettled when a transaction is still open after five seconds, KafkaError.
    """
    wanted = [TopicPartition(settings.named(partition.topic), partition.number) for partition in partitions]
    deadline = time.monotonic() + PATIENCE_SECONDS
    async with AsyncExitStack() as stack:
        committed, every = [await stack.enter_async_context(_open(settings, level)) for level in LEVELS]
        while held_up := await _held_up(committed, every, wanted, moment):
            if time.monotonic() > deadline:
                at, (stable, end) = min(held_up.items())
                raise NotSettled(await sentence(settings.kafka_bootstrap, at, stable, behind=end - stable))
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _open(settings: Settings, isolation_level: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, isolation_level=isolation_level)


async def _held_up(
    committed: Any, every: Any, wanted: list[TopicPartition], moment: datetime
) -> dict[TopicPartition, tuple[int, int]]:
    """For each partition where something recorded by `moment` lies behind an open transaction: where that stands, and the log's end."""
    stable, ends = await committed.end_offsets(wanted), await every.end_offsets(wanted)
    open_ones = [at for at in wanted if stable[at] < ends[at]]
    if not open_ones:
        return {}
    after_ms = milliseconds_of(moment + BROKERS_CLOCKS) + 1
    later = await every.offsets_for_times(dict.fromkeys(open_ones, after_ms))
    first_later = {at: ends[at] if later[at] is None else later[at].offset for at in open_ones}
    return {at: (stable[at], ends[at]) for at in open_ones if stable[at] < first_later[at]}
