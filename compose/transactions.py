"""Events that enter the log together or not at all."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from uuid_utils import uuid7

from compose.log import BATCH_BYTES, Appended, LogUnavailable, stop
from compose.settings import Settings
from schemas.envelope import encode
from schemas.events import Event
from schemas.log import Place

DEADLINE_SECONDS = 10.0
TIMEOUT_MS = 10_000  # until a broker, which looks every ten seconds, may give up a transaction whose writer is gone


class Transaction:
    """One that is open."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings, source: str) -> None:
        self._producer = producer
        self._settings = settings
        self._source = source

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """In this order on each partition; nobody reads them before the transaction ends well. Raises LogUnavailable."""
        sent, appended = [], []
        async with _in_time():
            for event in events:
                event_id = str(uuid7())
                message = encode(event, event_id=event_id, source=self._source)
                name = self._settings.named(message.topic)
                waiting = await self._producer.send(name, message.value, message.key, headers=message.headers)
                sent.append((message.topic, event_id, waiting))
            for topic, event_id, waiting in sent:
                recorded = await waiting
                appended.append(Appended(Place(topic, recorded.partition, recorded.offset), event_id))
        return appended


class Transactions:
    """One after the other, under a name that is of one process at a time."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings, source: str) -> None:
        self._producer = producer
        self._settings = settings
        self._source = source

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Committed at its end, aborted by an exception. Raises LogUnavailable: then what was appended may still be seen, all of it."""
        # Not by the producer's own context: that would abort without an end in time.
        async with _in_time():
            await self._producer.begin_transaction()
        try:
            yield Transaction(self._producer, self._settings, self._source)
        except BaseException:
            with suppress(LogUnavailable):
                async with _in_time():
                    await self._producer.abort_transaction()
            raise
        async with _in_time():
            await self._producer.commit_transaction()


@asynccontextmanager
async def open_transactions(settings: Settings, source: str, name: str) -> AsyncIterator[Transactions]:
    """Whoever used `name` before has ended: its last transaction is committed whole, or aborted. Raises LogUnavailable."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        acks="all",
        max_batch_size=BATCH_BYTES,
        transactional_id=settings.named(name),
        transaction_timeout_ms=TIMEOUT_MS,
    )
    try:
        async with _in_time():
            await producer.start()
        yield Transactions(producer, settings, source)
    finally:
        await stop(producer)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield
    except (KafkaError, TimeoutError, OSError) as error:
        raise LogUnavailable(str(error) or f"no answer within {DEADLINE_SECONDS:g} s") from error
