"""The hand-over of partitions, without I/O: what happened goes in, what to do comes out.

A partition that is assigned is paused in the same breath, since a reader that seeks later would already hand out records from elsewhere.
Then its checkpoint is read from the sink, the log that the checkpoint names is checked, and the reader seeks there and resumes. At most one
batch of a partition is with its agent; a bounded queue waits behind it. Each new beginning has a new epoch, and what comes back from an
older one changes nothing.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple

from projections.sinks.sink import Checkpoint, LogIdentity
from schemas.log import Place

WAITING_ATTEMPT = 4  # about a second, by the back-off of a store that is down
QUEUED_BATCHES = 2  # behind the one that is being applied: enough to hide a fetch, little enough to drop


class Partition(NamedTuple):
    """A partition by its topic's logical name."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


class Batch(NamedTuple):
    """Records of one partition. `next_offset` is where the reader stood after them, so aborted and empty stretches are passed too."""

    epoch: int
    partition: Partition
    from_offset: int
    next_offset: int
    records: Sequence[Any]

    def between(self, from_offset: int, next_offset: int) -> "Batch":
        """The part of it in [from_offset, next_offset)."""
        first, end = (bisect_left(self.records, at, key=attrgetter("offset")) for at in (from_offset, next_offset))
        return self._replace(from_offset=from_offset, next_offset=next_offset, records=self.records[first:end])


class Log(NamedTuple):
    """What the broker says of a partition: which log it is, and where it starts and ends."""

    identity: LogIdentity
    start_offset: int
    end_offset: int


class Pause(NamedTuple):
    """Fetch nothing of it; synchronously, before anything else happens."""

    partition: Partition


class ReadCheckpoint(NamedTuple):
    """Read the sink's checkpoint and the broker's word on the log, after `attempt` back-offs."""

    partition: Partition
    epoch: int
    attempt: int


class Seek(NamedTuple):
    """Go to `offset` and fetch from there."""

    partition: Partition
    offset: int


class Resume(NamedTuple):
    """Fetch it again."""

    partition: Partition


class Deliver(NamedTuple):
    """Hand the batch to the agent, after `attempt` back-offs."""

    batch: Batch
    attempt: int


class Refuse(NamedTuple):
    """Tell the operator why this partition stands still, and the way out."""

    partition: Partition
    why: str


class LookAgain(NamedTuple):
    """A little later, see whether the partition may go on: `look_again` begins it anew."""

    partition: Partition
    epoch: int


Command = Pause | ReadCheckpoint | Seek | Resume | Deliver | Refuse | LookAgain


class Phase(Enum):
    """What a partition waits for."""

    CHECKPOINT = "its checkpoint"
    RECORDS = "records"
    OPERATOR = "an operator"


class Progress(NamedTuple):
    """How far a partition is. `next_offset` is the first not folded, None while its checkpoint is not known; `appended_ms` when the
    record there was appended, None where it is not at hand."""

    next_offset: int | None
    appended_ms: int | None
    waits_for: str


@dataclass
class _State:
    epoch: int
    phase: Phase = Phase.CHECKPOINT
    position: int = 0
    attempt: int = 0
    is_paused: bool = True
    queue: deque[Batch] = field(default_factory=deque)


class Handover:
    """The partitions that one reader holds of one projection."""

    def __init__(self, projection: str) -> None:
        self._projection = projection
        self._epoch = 0
        self._held: dict[Partition, _State] = {}
        self._in_flight: dict[Partition, Batch] = {}
        self._reached: dict[Partition, int] = {}  # how far the store was

    @property
    def held(self) -> list[Partition]:
        return list(self._held)

    def phase(self, partition: Partition) -> Phase | None:
        """None when the partition is not held."""
        state = self._held.get(partition)
        return state.phase if state is not None else None

    def reading(self) -> dict[Partition, int]:
        """The partitions that records are fetched for just now, each with its epoch, which `fetched` is to be told."""
        return {p: s.epoch for p, s in self._held.items() if s.phase is Phase.RECORDS and not s.is_paused}

    def lacks(self, place: Place) -> bool:
        """Whether the record there is yet to be fetched."""
        state = self._held.get(Partition(place.topic, place.partition))
        return state is not None and state.phase is Phase.RECORDS and state.position <= place.offset

    def progress(self, partition: Partition) -> Progress | None:
        """None when the partition is not held."""
        state = self._held.get(partition)
        if state is None:
            return None
        batch = self._in_flight.get(partition)
        if batch is not None and batch.epoch != state.epoch:
            return Progress(None, None, "the end of a batch that was begun before the partition was assigned anew")
        oldest = batch or next(iter(state.queue), None)
        if oldest is not None:
            appended_ms = oldest.records[0].timestamp if oldest.records else None
            return Progress(
                oldest.from_offset, appended_ms, f"its batch of {len(oldest.records):,} records to be folded"
            )
        next_offset = state.position if state.phase is Phase.RECORDS else None
        return Progress(next_offset, None, state.phase.value)

    def in_flight(self, partitions: Sequence[Partition]) -> list[Partition]:
        """Those whose batch is still with an agent."""
        return [partition for partition in partitions if partition in self._in_flight]

    def assigned(self, partitions: Sequence[Partition]) -> Iterator[Command]:
        """The group gave us these. One that we held already begins anew too: another may have folded it in between."""
        for partition in partitions:
            yield from self._begin(partition)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """The group takes these away. What is queued is dropped; a call in flight may end, and will find its checkpoint moved or not."""
        for partition in partitions:
            self._held.pop(partition, None)

    def checkpoint_read(self, partition: Partition, epoch: int, checkpoint: Checkpoint, log: Log) -> Iterator[Command]:
        """Seek to the checkpoint, if it speaks of this log and lies in it."""
        state = self._current(partition, epoch)
        if state is None or state.phase is not Phase.CHECKPOINT:
            return
        if why := contradiction(self._projection, partition, checkpoint, log):
            state.phase = Phase.OPERATOR
            yield Refuse(partition, why)
            yield LookAgain(partition, epoch)
            return
        went_back = checkpoint.next_offset < self._reached.get(partition, 0)
        state.phase, state.position, state.attempt = Phase.RECORDS, checkpoint.next_offset, 0
        state.is_paused = False
        self._reached[partition] = state.position
        yield Seek(partition, state.position)
        yield Resume(partition)
        if went_back:
            yield from self._begin_all(besides=partition)

    def checkpoint_failed(self, partition: Partition, epoch: int) -> Iterator[Command]:
        """The sink or the broker could not be asked: again, a little later."""
        state = self._current(partition, epoch)
        if state is not None and state.phase is Phase.CHECKPOINT:
            state.attempt += 1
            yield ReadCheckpoint(partition, epoch, state.attempt)

    def fetched(self, partition: Partition, epoch: int, records: Sequence[Any], position: int) -> Iterator[Command]:
        """A fetch begun in `epoch` brought `records` (perhaps none), and left the reader at `position`."""
        state = self._held.get(partition)
        if state is None or state.phase is not Phase.RECORDS:
            return
        if state.epoch != epoch:
            # It may have taken the reader past our position: only a new seek is sure to be where the checkpoint is.
            yield from self._begin(partition)
            return
        if position <= state.position:
            return
        fresh = [record for record in records if record.offset >= state.position]
        batch = Batch(state.epoch, partition, state.position, position, fresh)
        state.position = position
        state.queue.append(batch)
        yield from self._deliver_next(partition, state)
        if len(state.queue) >= QUEUED_BATCHES and not state.is_paused:
            state.is_paused = True
            yield Pause(partition)

    def at_rest(self) -> dict[Partition, tuple[int, int]]:
        """The partitions of which nothing is left to fold just now: each with its epoch, and the offset where its checkpoint is."""
        return {
            partition: (state.epoch, state.position)
            for partition, state in self._held.items()
            if state.phase is Phase.RECORDS and not state.queue and partition not in self._in_flight
        }

    def went_back(self) -> Iterator[Command]:
        """A checkpoint lies before where it was: the store was emptied, or restored from a snapshot."""
        yield from self._begin_all()

    def out_of_range(self, partition: Partition) -> Iterator[Command]:
        """The broker has nothing at our position: the checkpoint is read again and checked against the log as it is now."""
        if partition in self._held:
            yield from self._begin(partition)

    def applied(self, batch: Batch) -> Iterator[Command]:
        """The batch is in the sink, and the checkpoint behind it."""
        self._reached[batch.partition] = max(batch.next_offset, self._reached.get(batch.partition, 0))
        yield from self._came_back(batch)

    def moved(self, batch: Batch) -> Iterator[Command]:
        """Another worker has moved the checkpoint: read it again and go where it is."""
        yield from self._begin_again(batch, attempt=0)

    def unavailable(self, batch: Batch) -> Iterator[Command]:
        """The store is down: this partition alone waits, and hands in the same batch again."""
        state = self._current(batch.partition, batch.epoch)
        if state is None:
            yield from self._came_back(batch)
            return
        state.attempt += 1
        yield Deliver(batch, state.attempt)

    def failed(self, batch: Batch) -> Iterator[Command]:
        """The agent raised what nobody expected. Nothing was lost: the checkpoint says where to go on."""
        state = self._current(batch.partition, batch.epoch)
        yield from self._begin_again(batch, attempt=1 if state is None else state.attempt + 1)

    def waits(self, batch: Batch) -> Iterator[Command]:
        """The batch, or the rest of it, has to wait for another partition: begin anew a moment later."""
        yield from self._begin_again(batch, attempt=WAITING_ATTEMPT)

    def halted(self, batch: Batch, why: str) -> Iterator[Command]:
        """Too much of the partition is parked, the rest of the batch among it: only an operator, or another release, helps."""
        partition = batch.partition
        if self._current(partition, batch.epoch) is None:
            yield from self._came_back(batch)
            return
        self._in_flight.pop(partition, None)
        self._epoch += 1
        self._held[partition] = _State(self._epoch, phase=Phase.OPERATOR)
        yield Pause(partition)
        yield Refuse(partition, why)
        yield LookAgain(partition, self._epoch)

    def look_again(self, partition: Partition, epoch: int) -> Iterator[Command]:
        """An operator may have helped."""
        state = self._current(partition, epoch)
        if state is not None and state.phase is Phase.OPERATOR:
            yield from self._begin(partition)

    def _begin(self, partition: Partition, attempt: int = 0) -> Iterator[Command]:
        self._epoch += 1
        self._held[partition] = _State(self._epoch, attempt=attempt)
        yield Pause(partition)
        # While a call of an earlier epoch is in flight, its outcome decides what the checkpoint will say.
        if partition not in self._in_flight:
            yield ReadCheckpoint(partition, self._epoch, attempt)

    def _begin_all(self, besides: Partition | None = None) -> Iterator[Command]:
        """A store that went back has lost something of other partitions too, although their checkpoints may be where they were."""
        self._reached = {p: offset for p, offset in self._reached.items() if p == besides}
        for partition in list(self._held):
            if partition != besides:
                yield from self._begin(partition)

    def _begin_again(self, batch: Batch, attempt: int) -> Iterator[Command]:
        state = self._current(batch.partition, batch.epoch)
        if state is None:
            yield from self._came_back(batch)
            return
        self._in_flight.pop(batch.partition, None)
        yield from self._begin(batch.partition, attempt)

    def _came_back(self, batch: Batch) -> Iterator[Command]:
        partition = batch.partition
        if self._in_flight.get(partition) is not batch:
            return
        del self._in_flight[partition]
        state = self._held.get(partition)
        if state is None:
            return
        if state.epoch != batch.epoch:
            if state.phase is Phase.CHECKPOINT:
                yield ReadCheckpoint(partition, state.epoch, state.attempt)
            return
        state.attempt = 0
        yield from self._deliver_next(partition, state)
        if state.is_paused and state.phase is Phase.RECORDS and len(state.queue) < QUEUED_BATCHES:
            state.is_paused = False
            yield Resume(partition)

    def _deliver_next(self, partition: Partition, state: _State) -> Iterator[Command]:
        if state.queue and partition not in self._in_flight:
            batch = self._in_flight[partition] = state.queue.popleft()
            yield Deliver(batch, 0)

    def _current(self, partition: Partition, epoch: int) -> _State | None:
        state = self._held.get(partition)
        return state if state is not None and state.epoch == epoch else None


def contradiction(projection: str, partition: Partition, checkpoint: Checkpoint, log: Log) -> str | None:
    """Why this checkpoint does not speak of this log, and the way out; None when it does."""
    way_out = f"fold it anew with `faust -A agents rebuild {projection}`, or give the topic back its log"
    at = f"{projection} is at {checkpoint.place}"
    if checkpoint.log.cluster_id != log.identity.cluster_id:
        return (
            f"{at} of the cluster {checkpoint.log.cluster_id}, but this cluster is {log.identity.cluster_id}; {way_out}"
        )
    if checkpoint.log.topic_id != log.identity.topic_id:
        return f"{at}, but the topic was created anew since; {way_out}"
    if checkpoint.log.partitions != log.identity.partitions:
        return (
            f"{at} of a topic of {checkpoint.log.partitions} partitions, but it has {log.identity.partitions} now, "
            f"so keys lie elsewhere; {way_out}"
        )
    if checkpoint.next_offset > log.end_offset:
        return f"{at}, but {partition} ends at {log.end_offset:,}: the log was truncated; {way_out}"
    if checkpoint.next_offset < log.start_offset:
        return (
            f"{at}, but {partition} begins at {log.start_offset:,}: events are gone that were never folded; {way_out}"
        )
    return None
