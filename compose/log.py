"""Appends an event to Kafka and says where it lies. No place without an acknowledgement of every replica in sync."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from uuid_utils import uuid7

from compose.metrics import LOG_APPEND_FAILURES, LOG_APPEND_SECONDS
from compose.settings import Settings
from schemas.envelope import encode
from schemas.events import Event
from schemas.log import Place

DEADLINE_SECONDS = 2.0  # aiokafka's own time-outs do not bound a send
FAILURES_TO_OPEN = 3  # in a row, until appends are refused at once
OPEN_SECONDS = 2.0
BROKERS_CLOCKS = timedelta(minutes=1)  # that a partition's clock may go back when another broker leads it
BATCH_BYTES = 256 * 1024

logger = structlog.get_logger(__name__)


class Appended(NamedTuple):
    """The event lies at `place` for ever."""

    place: Place
    event_id: str


class LogUnavailable(Exception):
    """The append was not acknowledged in time. It may still arrive: sending the same event again is the same event."""

    def __init__(self, why: str, *, retry_after_seconds: float = OPEN_SECONDS) -> None:
        super().__init__(f"the log did not acknowledge: {why}")
        self.retry_after_seconds = retry_after_seconds


class EventLog:
    """The one way that this system's own events enter the log.

    A producer that failed is replaced, since an idempotent one can wedge for good after its broker froze. After three failures in a row
    appends are refused at once for two seconds, then one is let through to try.
    """

    def __init__(self, settings: Settings, source: str) -> None:
        self._settings = settings
        self._source = source
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None
        self._discarded: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._closed_until = 0.0

    async def append(self, event: Event, *, event_id: str | None = None) -> Appended:
        """Append `event` and wait until it is acknowledged, two seconds at most. Raises LogUnavailable.

        Who may call again after LogUnavailable hands in the `event_id`, so that both are the same event.
        """
        event_id = event_id or str(uuid7())
        message = encode(event, event_id=event_id, source=self._source)
        self._let_through()
        began = time.monotonic()
        producer: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                producer = await self._started_producer()
                sent = await producer.send(
                    self._settings.named(message.topic), message.value, message.key, headers=message.headers
                )
                # Shielded: the record is in the producer's hands, and cancelling its future would wedge the batch.
                recorded = await asyncio.shield(sent)
        except (KafkaError, TimeoutError, OSError) as error:
            self._failed(producer)
            LOG_APPEND_FAILURES.labels("timeout" if isinstance(error, TimeoutError) else "error").inc()
            why = f"no answer within {DEADLINE_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
            raise LogUnavailable(why) from error
        self._failures = 0
        LOG_APPEND_SECONDS.observe(time.monotonic() - began)
        return Appended(Place(message.topic, recorded.partition, recorded.offset), event_id)

    async def ends(self, places: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """The end (the next offset to be written) of each (topic, partition). Raises LogUnavailable, also for one that does not exist."""
        wanted = {
            TopicPartition(self._settings.named(topic), partition): (topic, partition) for topic, partition in places
        }
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                consumer = await self._started_consumer()
                ends = await consumer.end_offsets(list(wanted))
        except (KafkaError, TimeoutError, OSError) as error:
            raise LogUnavailable(str(error) or "no answer in time") from error
        return {wanted[partition]: end for partition, end in ends.items()}

    async def ends_at(self, moment: datetime, places: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """For each (topic, partition) an offset that nothing recorded by `moment` lies beyond. Raises LogUnavailable.

        It counts what is not committed yet: whoever waits for a reader of committed records to be there waits for open transactions too.
        """
        wanted = {
            TopicPartition(self._settings.named(topic), partition): (topic, partition) for topic, partition in places
        }
        after_ms = round((moment + BROKERS_CLOCKS).timestamp() * 1_000) + 1
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                consumer = await self._started_consumer()
                found = await consumer.offsets_for_times(dict.fromkeys(wanted, after_ms))
                ends = await consumer.end_offsets([partition for partition, at in found.items() if at is None])
        except (KafkaError, TimeoutError, OSError) as error:
            raise LogUnavailable(str(error) or "no answer in time") from error
        return {place: ends[at] if found[at] is None else found[at].offset for at, place in wanted.items()}

    async def close(self) -> None:
        """Flush what was sent and leave the broker."""
        for client in (self._producer, self._consumer):
            if client is not None:
                await stop(client)
        self._producer = self._consumer = None
        if self._discarded:
            await asyncio.wait(self._discarded)

    def _let_through(self) -> None:
        wait_seconds = self._closed_until - time.monotonic()
        if self._failures >= FAILURES_TO_OPEN and wait_seconds > 0:
            LOG_APPEND_FAILURES.labels("refused").inc()
            raise LogUnavailable("it has been down for a moment", retry_after_seconds=wait_seconds)
        if self._failures >= FAILURES_TO_OPEN:
            # This call is the one that tries; the others are refused until it knows.
            self._closed_until = time.monotonic() + DEADLINE_SECONDS

    def _failed(self, producer: AIOKafkaProducer | None) -> None:
        self._failures += 1
        self._closed_until = time.monotonic() + OPEN_SECONDS
        if producer is not None and producer is self._producer:
            logger.warning("the producer failed and is replaced", bootstrap=self._settings.kafka_bootstrap)
            self._producer = None
            task = asyncio.create_task(stop(producer))
            self._discarded.add(task)
            task.add_done_callback(self._discarded.discard)

    async def _started_producer(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._settings.kafka_bootstrap,
                    acks="all",
                    enable_idempotence=True,
                    max_batch_size=BATCH_BYTES,
                    request_timeout_ms=round(DEADLINE_SECONDS * 1_000),
                )
                await _start(producer)
                self._producer = producer
            return self._producer

    async def _started_consumer(self) -> AIOKafkaConsumer:
        async with self._starting:
            if self._consumer is None:
                consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_bootstrap)
                await _start(consumer)
                self._consumer = consumer
            return self._consumer


async def _start(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    try:
        await client.start()
    except BaseException:
        await stop(client)
        raise


async def stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Let it flush and leave, two seconds at most."""
    # A client that could not be started, or whose broker is gone, has nothing left to say.
    with contextlib.suppress(KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await client.stop()


@asynccontextmanager
async def open_log(settings: Settings, source: str) -> AsyncIterator[EventLog]:
    """The log, closed at the end. Connects at the first append, so that a broker that is down stops no start."""
    log = EventLog(settings, source)
    try:
        yield log
    finally:
        await log.close()
