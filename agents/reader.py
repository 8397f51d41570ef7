"""One projection's consumer: carries out what the hand-over says, and tells it what came of it."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from io import StringIO

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    IllegalStateError,
    InconsistentGroupProtocolError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from agents.fetching import FETCH_WAIT_MS
from agents.handover import (
    WAITING_ATTEMPT,
    Batch,
    Command,
    Deliver,
    Handover,
    Log,
    LookAgain,
    Partition,
    Pause,
    ReadCheckpoint,
    Refuse,
    Resume,
    Seek,
)
from agents.hindrances import BLOCKED_SECONDS
from agents.limits import Halted
from agents.lookout import Lookout
from agents.metrics import BATCH_SECONDS, BATCHES, HURRIED_FETCHES, timed
from agents.pacing import Pacing
from agents.parking import NotYet
from agents.standing import Standing
from agents.standstills import Standstills
from agents.topics import log_identities
from compose.settings import Settings
from projections.projection import Projection
from projections.sinks.sink import CheckpointMoved, LogIdentity, Sink, StoreUnavailable
from schemas.log import Place

MAX_RECORDS = 5_000  # in a batch: a few hundredths of a second of folding
POLL_MS = 100
SESSION_MS = 8_000  # a killed worker's partitions are taken over after so long
HEARTBEAT_MS = 2_000
# A partition whose store is down is not polled. Left at its five minutes, the consumer would silently leave its group and go on
# believing that it owns the partition; that a reader is alive is what heartbeats are for.
IDLE_MS = 24 * 60 * 60 * 1_000
LOOK_AROUND_SECONDS = 10.0  # for what no server says by itself
LOOK_AGAIN_SECONDS = 5.0  # at a partition that waits for an operator
DRAIN_SECONDS = 5.0  # for the one call in flight, when a partition is taken away
STACK_FRAMES = 12
FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 0.1, 10.0

logger = structlog.get_logger(__name__)


def back_off_seconds(attempt: int) -> float:
    """How long to wait before the `attempt`-th try again: it doubles, with jitter, up to ten seconds."""
    if attempt == 0:
        return 0.0
    longest = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2 ** min(attempt, 16))
    return random.uniform(longest / 2, longest)


class Reader:
    """Reads a projection's partitions in batches from the checkpoints in its sink, and hands each to `deliver`.

    `deliver` puts the batch where an agent takes it; the agent calls `process`. `on_hold` and `on_release` tell which partitions are
    held, for who keeps something by partition.
    """

    def __init__(
        self,
        settings: Settings,
        projection: Projection,
        sink: Sink,
        partitions: Mapping[str, int],
        *,
        fold: Callable[[Batch], Awaitable[None]],
        deliver: Callable[[Batch], Awaitable[None]],
        on_hold: Callable[[str, Partition], None] = lambda projection, partition: None,
        on_release: Callable[[str, Partition], None] = lambda projection, partition: None,
        look_around_seconds: float = LOOK_AROUND_SECONDS,
        blocked_seconds: float = BLOCKED_SECONDS,
    ) -> None:
        self.projection = projection
        self.standstills = Standstills(projection.name)
        self._settings = settings
        self._sink = sink
        self._partitions = {topic: partitions[topic] for topic in projection.reads}
        self._fold = fold
        self._deliver = deliver
        self._on_hold, self._on_release = on_hold, on_release
        self._handover = Handover(projection.name)
        self._tasks: dict[asyncio.Task[None], Batch | None] = {}  # each with the batch that it is to hand over
        self._came_back = asyncio.Condition()
        self._failure: BaseException | None = None
        self._is_stopping = False
        self._has_begun = False
        self._folding: set[asyncio.Task[None]] = set()
        self._look_around_seconds = look_around_seconds
        self.lookout = Lookout(
            settings, projection, sink, self._handover, self.standstills, blocked_seconds=blocked_seconds
        )
        self._pacing = Pacing()
        self._rests = False  # until then it reads only what is waited for, whatever the hand-over lets go on
        self._waited_for: dict[Partition, Place] = {}
        self._is_waited_for = asyncio.Event()
        self._hurried_fetches = HURRIED_FETCHES.labels(projection.name)
        self._consumer = self._new_consumer()

    async def run(self) -> None:
        """Read until told to stop. A broker or a store that is down is waited for, and said once. Raises what nobody expected."""
        try:
            await self._begin()
            self._start(self._look_around())
            while not self._is_stopping:
                if self._failure:
                    raise self._failure
                try:
                    await self._fetch()
                except InconsistentGroupProtocolError:
                    await self._begin_anew()
        finally:
            await self._end()

    def stop(self) -> None:
        """`run` ends with its next step. Cancelling it as well ends what it waits for, yet is not enough: a client of aiokafka that
        is closing swallows the cancellation."""
        self._is_stopping = True

    def hurry(self, places: Iterable[Place]) -> None:
        """Somebody waits for what was written there a moment ago: it is fetched soon."""
        lacking = {Partition(place.topic, place.partition): place for place in places if self._handover.lacks(place)}
        if lacking:
            self._waited_for |= lacking
            self._is_waited_for.set()

    @property
    def has_begun(self) -> bool:
        """Whether its servers have answered, so that it reads what the group gives it."""
        return self._has_begun

    def standings(self) -> list[Standing]:
        """Where each partition stands that it holds."""
        name, version = self.projection.name, self.projection.version
        return [
            Standing(
                name,
                version,
                partition,
                progress,
                self.standstills.refusals.get(partition),
                self.standstills.reason(partition),
                self.standstills.blames_kafka(partition),
            )
            for partition in self._handover.held
            if (progress := self._handover.progress(partition))
        ]

    def whereabouts(self) -> str:
        """What each of its tasks waits for just now, as stacks."""
        told = StringIO()
        for task in (*self._tasks, *self._folding):
            task.print_stack(limit=STACK_FRAMES, file=told)
        return told.getvalue()

    async def process(self, batch: Batch) -> None:
        """Fold `batch`, for an agent; whatever comes of it, the hand-over knows. Raises only what nobody expected."""
        commands: Iterable[Command]
        outcome = "applied"
        try:
            # A task of its own, which can be given up without the agent that waits for it.
            folding = asyncio.ensure_future(self._fold(batch))
            self._folding.add(folding)
            folding.add_done_callback(self._folding.discard)
            with timed(BATCH_SECONDS, self.projection.name):
                await folding
        except CheckpointMoved as moved:
            logger.info("the checkpoint has moved, and is read again", projection=self.projection.name, why=str(moved))
            outcome, commands = "moved", self._handover.moved(batch)
        except StoreUnavailable as unavailable:
            self.standstills.unavailable(batch.partition, str(unavailable))
            outcome, commands = "unavailable", self._handover.unavailable(batch)
        except NotYet as waits:
            logger.debug("a batch waits", projection=self.projection.full_name, why=str(waits))
            self.standstills.waits(batch.partition, str(waits))
            outcome, commands = "waits", self._handover.waits(batch)
        except Halted as halted:
            self.standstills.halted(batch.partition)
            outcome, commands = "halted", self._handover.halted(batch, str(halted))
        except BaseException as error:
            outcome = "failed"
            self._carry_out(self._handover.failed(batch))
            await self._tell()
            agent = asyncio.current_task()
            if not isinstance(error, asyncio.CancelledError) or (agent and agent.cancelling()):
                raise
            return
        else:
            self.standstills.applied(batch.partition)
            commands = self._handover.applied(batch)
        finally:
            BATCHES.labels(self.projection.name, outcome).inc()
        self._carry_out(commands)
        await self._tell()

    def _new_consumer(self) -> AIOKafkaConsumer:
        worker = self._settings.worker_id
        group = self._settings.named(self.projection.full_name)
        return AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            group_id=group,
            group_instance_id=f"{group}.{worker}" if worker else None,
            client_id=f"{group}.{worker}" if worker else group,
            partition_assignment_strategy=[StickyPartitionAssignor],
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            max_poll_interval_ms=IDLE_MS,
        )

    async def _begin(self) -> None:
        attempt = 0
        while not self._is_stopping:
            try:
                await self._sink.prepare()
                # Before the first batch: a board that knows no time yet would keep every minute of a long replay.
                await self._sink.tick(datetime.now(UTC))
                await self._check_topics()
                await self._consumer.start()
                break
            except (StoreUnavailable, KafkaError, OSError) as error:
                attempt += 1
                if attempt == 1:
                    logger.warning("waiting for a server", projection=self.projection.name, why=str(error))
                with contextlib.suppress(KafkaError, OSError):
                    await self._consumer.stop()
                self._consumer = self._new_consumer()
                await asyncio.sleep(back_off_seconds(attempt))
        topics = [self._settings.named(topic) for topic in self.projection.reads]
        self._consumer.subscribe(topics, listener=_Listener(self))
        self._has_begun = True
        logger.info("reading", projection=self.projection.name, topics=topics)

    async def _begin_anew(self) -> None:
        """The group does not take us in: somebody is in it who deals partitions out in another way. `lookout` names who."""
        with contextlib.suppress(KafkaError, OSError):
            await self.lookout.look_for_strangers()
        with contextlib.suppress(KafkaError, OSError):
            await self._consumer.stop()
        await asyncio.sleep(back_off_seconds(WAITING_ATTEMPT))
        self._consumer = self._new_consumer()
        await self._begin()

    async def _check_topics(self) -> None:
        """Raises KafkaError or StoreUnavailable unless each topic is there, as it is declared: a consumer might create it otherwise."""
        names = {self._settings.named(topic): count for topic, count in self._partitions.items()}
        for name, identity in (await log_identities(self._settings.kafka_bootstrap, names)).items():
            if identity.partitions != names[name]:
                why = f"{name} has {identity.partitions} partitions, and streams.yaml declares {names[name]}"
                raise StoreUnavailable("kafka", f"{why}: growing a topic is a migration")

    async def _fetch(self) -> None:
        epochs = self._handover.reading()
        if not epochs:
            # No poll of everything here: a partition that resumes during it would have records taken that nobody asked for.
            await asyncio.sleep(FETCH_WAIT_MS / 1_000)
            if not self._consumer.assignment():
                # Takes nothing, but raises what keeps the group from giving us anything.
                await self._consumer.getmany(timeout_ms=0)
            return
        self._consumer._fetcher._fetch_max_wait_ms = self._pacing.wait_ms(self._now())
        await self._take(epochs)
        if self._rests:
            await self._rest()

    async def _take(self, epochs: Mapping[Partition, int], *, is_hurried: bool = False) -> None:
        """Hand over what has come of these partitions, or comes in a moment."""
        wanted = {self._topic_partition(partition): partition for partition in epochs}
        timeout_ms = FETCH_WAIT_MS if is_hurried else POLL_MS
        try:
            fetched = await self._consumer.getmany(*wanted, timeout_ms=timeout_ms, max_records=MAX_RECORDS)
        except NoOffsetForPartitionError:
            # Assigned anew while we waited: it has no position until its checkpoint is read.
            return
        except OffsetOutOfRangeError as error:
            for topic_partition in error.args[0]:
                self._carry_out(self._handover.out_of_range(self._partition(topic_partition)))
            return
        if is_hurried:
            self._pacing.hurried(self._now())
        elif fetched:
            self._pacing.came(self._now(), sum(map(len, fetched.values())))
            self._rests = self._pacing.rest_until > self._now()
        if self._rests:
            # Before anything else happens: the next fetch begins by itself, and cannot be taken back.
            self._consumer.pause(*self._consumer.assignment())
        for topic_partition, partition in wanted.items():
            try:
                position = await self._consumer.position(topic_partition)
            except IllegalStateError:  # taken away in the meantime
                continue
            records = fetched.get(topic_partition, [])
            self._carry_out(self._handover.fetched(partition, epochs[partition], records, position))

    async def _rest(self) -> None:
        """Until it is time for the next fetch; but for what somebody waits for."""
        # What happens meanwhile must not put it off: whoever is not waited for has its turn.
        until = self._pacing.rest_until
        while await self._hurried_before(until):
            waited_for = {partition for partition, place in self._waited_for.items() if self._handover.lacks(place)}
            self._waited_for.clear()
            self._is_waited_for.clear()
            epochs = {p: epoch for p, epoch in self._handover.reading().items() if p in waited_for}
            if epochs:
                self._hurried_fetches.inc()
                self._consumer.resume(*map(self._topic_partition, epochs))
                await self._take(epochs, is_hurried=True)
        self._rests = False
        self._consumer.resume(*map(self._topic_partition, self._handover.reading()))

    async def _hurried_before(self, until: float) -> bool:
        """Whether somebody waits; returns as soon as it is time to fetch for them, else at `until`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - self._now()):
                await self._is_waited_for.wait()
                await asyncio.sleep(self._pacing.hurry_from - self._now())
                return True
        return False

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _end(self) -> None:
        await self.revoke(self._handover.held)
        left = [*self._tasks, *self._folding]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        with contextlib.suppress(KafkaError, OSError):
            await self._consumer.stop()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """The group gave us these; the first thing, in the same breath, is to pause them."""
        given = list(partitions)
        self._carry_out(self._handover.assigned(given))
        for partition in given:
            self._on_hold(self.projection.full_name, partition)

    async def revoke(self, partitions: Iterable[Partition]) -> None:
        """The group takes these away; returns when no agent has anything of theirs, within five seconds."""
        taken = list(partitions)
        self._handover.revoked(taken)
        await self._withdraw(taken)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS), self._came_back:
                await self._came_back.wait_for(lambda: not self._handover.in_flight(taken))
        for partition in taken:
            self.standstills.forget(partition)
            self._on_release(self.projection.full_name, partition)

    async def _withdraw(self, taken: Iterable[Partition]) -> None:
        """What waits to be handed to an agent, perhaps because a store is down, is not handed over any more."""
        waiting = {task: batch for task, batch in self._tasks.items() if batch and batch.partition in taken}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for task, batch in waiting.items():
            if batch and task.cancelled():
                self._carry_out(self._handover.failed(batch))

    async def _tell(self) -> None:
        async with self._came_back:
            self._came_back.notify_all()

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Pause(partition):
                    self._consumer.pause(self._topic_partition(partition))
                case Resume(partition):
                    if not self._rests:
                        self._consumer.resume(self._topic_partition(partition))
                    self._pacing.resumed(self._now())
                    self.standstills.resumed(partition)
                case Seek(partition, offset):
                    self._consumer.seek(self._topic_partition(partition), offset)
                case Refuse(partition, why):
                    self.standstills.refused(partition, why)
                case LookAgain(partition, epoch):
                    self._start(self._look_again(partition, epoch))
                case ReadCheckpoint():
                    self._start(self._read_checkpoint(command))
                case Deliver(batch, attempt):
                    self._start(self._deliver_later(batch, attempt), batch)

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.0) * self._look_around_seconds)
            try:
                self._carry_out(await self.lookout.look(self._consumer))
            except (KafkaError, OSError) as error:
                logger.debug("cannot look around", projection=self.projection.full_name, why=str(error))

    async def _look_again(self, partition: Partition, epoch: int) -> None:
        await asyncio.sleep(random.uniform(LOOK_AGAIN_SECONDS / 2, LOOK_AGAIN_SECONDS))
        self._carry_out(self._handover.look_again(partition, epoch))

    def _start(self, work: Awaitable[None], batch: Batch | None = None) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[task] = batch
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()):
            self._failure = error

    async def _deliver_later(self, batch: Batch, attempt: int) -> None:
        await asyncio.sleep(back_off_seconds(attempt))
        await self._deliver(batch)

    async def _read_checkpoint(self, command: ReadCheckpoint) -> None:
        partition, epoch, attempt = command
        await asyncio.sleep(back_off_seconds(attempt))
        try:
            identity = await self._identity(partition)
            checkpoint = await self._sink.checkpoint(partition.topic, partition.number, identity)
            # The ends after the checkpoint, which another may have moved past an end that was asked for before.
            log = await self._log(partition, identity)
        except (StoreUnavailable, KafkaError, OSError) as error:
            why, by_kafka = str(error) or type(error).__name__, not isinstance(error, StoreUnavailable)
            self.standstills.unread(partition, why, attempt=attempt, by_kafka=by_kafka)
            self._carry_out(self._handover.checkpoint_failed(partition, epoch))
            return
        self.standstills.read(partition)
        # Between the answer and the seek lies no await, so the assignment that the hand-over knows is the consumer's.
        if self._topic_partition(partition) in self._consumer.assignment():
            self._carry_out(self._handover.checkpoint_read(partition, epoch, checkpoint, log))

    async def _identity(self, partition: Partition) -> LogIdentity:
        topic = self._topic_partition(partition).topic
        return (await log_identities(self._settings.kafka_bootstrap, [topic]))[topic]

    async def _log(self, partition: Partition, identity: LogIdentity) -> Log:
        at = self._topic_partition(partition)
        starts = await self._consumer.beginning_offsets([at])
        ends = await self._consumer.end_offsets([at])
        return Log(identity, starts[at], ends[at])

    def _topic_partition(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.named(partition.topic), partition.number)

    def _partition(self, topic_partition: TopicPartition) -> Partition:
        return Partition(topic_partition.topic.removeprefix(self._settings.prefix), topic_partition.partition)


class _Listener(ConsumerRebalanceListener):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._reader.assign(map(self._reader._partition, assigned))

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._reader.revoke(map(self._reader._partition, revoked))
