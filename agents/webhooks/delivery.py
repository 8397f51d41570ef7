"""One subscription's deliveries: read the log from its cursor, tell each event in its partition's order, go on when it was taken."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from agents.fetching import FETCH_WAIT_MS
from agents.handover import Partition
from agents.webhooks.claims import Claimed, Claims, Cursor
from compose.outgoing import Outcome, Outgoing
from compose.settings import Settings
from compose.webhooks import Attempt, State
from projections.sinks.sink import StoreUnavailable
from schemas.decoded import Decoded
from schemas.envelope import decode
from schemas.errors import Poison
from schemas.events import EVENTS
from schemas.log import Place, write_token
from schemas.streams import streams
from schemas.structured import structured

SAVE_SECONDS = 0.5  # so much is told again after a kill
POLL_MS = 100
FETCH_BYTES = 256 * 1024  # a partition's, as a subscriber takes one event at a time
SIDE_BY_SIDE = 4  # calls to one subscriber, each of another partition
FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 1.0, 600.0
GONE = 410
CURSOR_HEADER = "webhook-cursor"

logger = structlog.get_logger(__name__)


class Stopped(Exception):
    """Nothing more is to be delivered, until somebody resumes it."""

    def __init__(self, state: State, why: str) -> None:
        super().__init__(why)
        self.state: State = state


def back_off_seconds(attempts: int, retry_after_seconds: float | None) -> float:
    """How long to wait after so many failures: what the subscriber asks for, else twice as long each time, with jitter."""
    longest = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2 ** min(attempts - 1, 16))
    return max(retry_after_seconds or 0.0, random.uniform(longest / 2, longest))


class Delivery:
    """Delivers at least once. A partition whose event fails waits; the others go on."""

    def __init__(self, settings: Settings, claims: Claims, claimed: Claimed, outgoing: Outgoing) -> None:
        self._settings = settings
        self._claims = claims
        self._claimed = claimed
        self._outgoing = outgoing
        self._cursors: dict[Partition, Cursor] = {}
        self._moved: set[Partition] = set()
        self._attempts: list[Attempt] = []
        self._calls = asyncio.Semaphore(SIDE_BY_SIDE)
        self._telling: dict[asyncio.Task[None], TopicPartition] = {}

    async def run(self) -> None:
        """Deliver until the claim is lost. Raises StoreUnavailable, or KafkaError when no broker answers."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            await consumer.start()
            known = await self._claims.cursors(self._claimed)
            self._cursors = {partition: known.get(partition, Cursor(0)) for partition in self._partitions()}
            consumer.assign([self._at(partition) for partition in self._cursors])
            for partition, cursor in self._cursors.items():
                consumer.seek(self._at(partition), cursor.next_offset)
            await self._deliver(consumer)
        except Stopped as stopped:
            logger.warning("a webhook is stopped", webhook=self._claimed.id, state=stopped.state, why=str(stopped))
            await self._save()
            await self._claims.stop(self._claimed, stopped.state, str(stopped))
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back())
            raise
        finally:
            await self._end_telling()
            await consumer.stop()

    async def _deliver(self, consumer: Any) -> None:
        loop = asyncio.get_running_loop()
        save_at = loop.time() + SAVE_SECONDS
        while True:
            for task in [task for task in self._telling if task.done()]:
                consumer.resume(self._telling.pop(task))
                task.result()
            if loop.time() >= save_at:
                if not await self._save():
                    logger.info("another goes on with a webhook", webhook=self._claimed.id)
                    return
                save_at = loop.time() + SAVE_SECONDS
            try:
                fetched = await consumer.getmany(timeout_ms=POLL_MS)
            except OffsetOutOfRangeError as error:
                names = ", ".join(f"{at.topic}/{at.partition} at {offset:,}" for at, offset in error.args[0].items())
                raise Stopped(
                    "paused", f"the log does not hold its cursor ({names}): replay from another one"
                ) from error
            for at, records in fetched.items():
                consumer.pause(at)
                next_offset = await consumer.position(at)
                self._telling[asyncio.create_task(self._tell_all(at, records, next_offset))] = at
            await self._pass_by(consumer)

    async def _pass_by(self, consumer: Any) -> None:
        """Stretches without an event for anyone, such as aborted transactions, are behind it too."""
        busy = set(self._telling.values())
        for partition, cursor in self._cursors.items():
            if (at := self._at(partition)) not in busy:
                position = await consumer.position(at)
                if position > cursor.next_offset:
                    self._move(partition, Cursor(position))

    async def _tell_all(self, at: TopicPartition, records: Sequence[Any], next_offset: int) -> None:
        partition = self._partition(at)
        for record in records:
            try:
                decoded = decode(record, partition.topic)
            except Poison:
                decoded = None  # it is parked, and no event
            if decoded is not None and self._is_wanted(decoded.event.type):
                await self._tell(partition, record, decoded)
            self._move(partition, Cursor(record.offset + 1))
        self._move(partition, Cursor(next_offset))

    async def _tell(self, partition: Partition, record: Any, decoded: Decoded) -> None:
        """Until the subscriber has taken it. Raises Stopped."""
        body = structured(record, decoded)
        cursor = self._cursors[partition]._replace(next_offset=record.offset)
        while True:
            if cursor.not_before is not None:
                await asyncio.sleep(max(0.0, (cursor.not_before - datetime.now(UTC)).total_seconds()))
            async with self._calls:
                outcome = await self._call(decoded, body, cursor)
            if outcome.is_delivered:
                return
            cursor = self._failed(cursor, outcome)
            self._move(partition, cursor)

    async def _call(self, decoded: Decoded, body: bytes, cursor: Cursor) -> Outcome:
        event, recorded = decoded
        attempted_at = datetime.now(UTC)
        places = [Place(*at, known.next_offset) for at, known in self._cursors.items() if at != recorded.place[:2]]
        token = write_token([*places, recorded.place], self._settings.secret_key.get_secret_value())
        claimed = self._claimed
        outcome = await self._outgoing.post(
            claimed.url, claimed.secret, recorded.event_id, body, {CURSOR_HEADER: token}
        )
        attempt = cursor.attempts + 1
        self._attempts.append(
            Attempt(
                recorded.event_id,
                event.type,
                recorded.place,
                attempt,
                attempted_at,
                outcome.took_ms,
                outcome.status,
                outcome.error,
            )
        )
        return outcome

    def _failed(self, cursor: Cursor, outcome: Outcome) -> Cursor:
        now = datetime.now(UTC)
        if outcome.status == GONE:
            raise Stopped("disabled", "the subscriber answered 410 Gone: nothing is sent any more")
        since = cursor.failing_since or now
        hours = self._settings.webhook_give_up_hours
        if now - since > timedelta(hours=hours):
            raise Stopped(
                "paused", f"nothing was taken for {hours:g} hours, at last because {outcome.words}: resume it"
            )
        attempts = cursor.attempts + 1
        wait = timedelta(seconds=back_off_seconds(attempts, outcome.retry_after_seconds))
        return cursor._replace(attempts=attempts, failing_since=since, not_before=now + wait)

    def _move(self, partition: Partition, cursor: Cursor) -> None:
        self._cursors[partition] = cursor
        self._moved.add(partition)

    async def _save(self) -> bool:
        moved, self._moved = self._moved, set()
        attempts, self._attempts = self._attempts, []
        return await self._claims.save(self._claimed, {at: self._cursors[at] for at in moved}, attempts)

    async def _give_back(self) -> None:
        await self._end_telling()
        with contextlib.suppress(StoreUnavailable):
            if await self._save():
                await self._claims.give_back(self._claimed)

    async def _end_telling(self) -> None:
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    def _is_wanted(self, event_type: str) -> bool:
        return self._claimed.types is None or event_type in self._claimed.types

    def _partitions(self) -> list[Partition]:
        topics = {event.topic for name, event in EVENTS.items() if self._is_wanted(name)}
        return [
            Partition(topic, number)
            for topic, spec in streams().topics.items()
            if topic in topics
            for number in range(spec.partitions)
        ]

    def _at(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.named(partition.topic), partition.number)

    def _partition(self, at: TopicPartition) -> Partition:
        return Partition(at.topic.removeprefix(self._settings.prefix), at.partition)
