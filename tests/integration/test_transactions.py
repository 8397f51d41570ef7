"""Events of a transaction are seen together or not at all, whatever becomes of who writes it."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from compose.log import LogUnavailable
from compose.provisioning import provision_topics
from compose.settings import Settings
from compose.transactions import Transaction, open_transactions
from schemas.events import RecordDiscarded, VideoViewed
from schemas.streams import streams
from tests.given import EVENING
from tests.working import until, viewed

pytestmark = [pytest.mark.usefixtures("kafka"), pytest.mark.timeout(90)]

NAME = "decisions"
DISCARDED = RecordDiscarded(occurred_at=EVENING, record="views:3:41207", projections=["views"], by="ops", why="cut off")


class GivenUp(Exception):
    """By who writes."""


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Reads whatever is committed on both topics."""
    await provision_topics(settings, streams().topics)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    consumer.assign(
        [
            TopicPartition(settings.named(topic), number)
            for topic in ("views", "decisions")
            for number in range(streams().topics[topic].partitions)
        ]
    )
    try:
        yield consumer
    finally:
        await consumer.stop()


async def is_read(log: AIOKafkaConsumer, keys: set[bytes]) -> None:
    """These, and no others, come next."""
    found: set[bytes] = set()

    async def has_come() -> bool:
        for records in (await log.getmany(timeout_ms=200)).values():
            found.update(record.key for record in records)
        return found >= keys

    await until(has_come)
    assert found == keys


async def some(transaction: Transaction, view: VideoViewed) -> None:
    (decided,) = await transaction.append([DISCARDED])
    assert decided.place[:2] == ("decisions", 0)
    (seen,) = await transaction.append([view])
    assert seen.place.topic == "views"


async def test_both_topics_show_what_was_committed_and_nothing_of_what_was_given_up(
    settings: Settings, log: AIOKafkaConsumer
) -> None:
    async with open_transactions(settings, "/tests", NAME) as transactions:
        with suppress(GivenUp):
            async with transactions.begin() as transaction:
                await some(transaction, viewed("given-up", "heat"))
                raise GivenUp
        async with transactions.begin() as transaction:
            await some(transaction, viewed("kept", "heat"))
    await is_read(log, {b"kept", DISCARDED.record.encode()})


async def test_who_opens_the_same_name_ends_what_another_has_left_open(
    settings: Settings, log: AIOKafkaConsumer
) -> None:
    async with open_transactions(settings, "/tests", NAME) as transactions:
        with suppress(LogUnavailable):
            async with transactions.begin() as transaction:
                await some(transaction, viewed("left", "heat"))
                async with open_transactions(settings, "/tests", NAME) as others, others.begin() as other:
                    await some(other, viewed("kept", "heat"))
                await some(transaction, viewed("late", "heat"))
                raise AssertionError("it was fenced off")
    await is_read(log, {b"kept", DISCARDED.record.encode()})


async def test_without_a_broker_nobody_waits_for_ever(settings: Settings) -> None:
    away = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(LogUnavailable):
        async with open_transactions(away, "/tests", NAME):
            raise AssertionError("there is none")
