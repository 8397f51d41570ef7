"""Workers that fold a log into a sink, all in memory, under a scheduler that lets anything happen between any two awaits.

Each task is a generator; where the real reader awaits, it yields. One seed is one course of events, the same every time.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from typing import NamedTuple

from agents.handover import (
    QUEUED_BATCHES,
    Batch,
    Command,
    Deliver,
    Handover,
    Log,
    Partition,
    Pause,
    Phase,
    ReadCheckpoint,
    Refuse,
    Resume,
    Seek,
)
from projections.sinks.sink import Checkpoint, LogIdentity
from schemas.log import Place

PARTITIONS = [Partition("views", number) for number in range(3)]
FETCHED_AT_ONCE = 6
EVENTFUL_STEPS = 500
CALM_STEPS = 100
MOST_WORKERS = 4
STEPS_BETWEEN_LOOKS = 10
MOST_STEPS = 20_000  # after which a world that has not come to rest never will

SEEDS_A_PART = 250

Task = Generator[None, None, None]


class Wrong(AssertionError):
    """What happened must never happen."""


class Entry(NamedTuple):
    """A committed record; `value` tells where it was first written, so that none can pose as another."""

    offset: int
    value: str


@dataclass
class SimulatedLog:
    """One partition. An aborted record, or a transaction's marker, is None: it takes an offset and is never read."""

    identity: LogIdentity
    entries: list[str | None] = field(default_factory=list)
    is_cut: bool = False

    @property
    def end(self) -> int:
        return len(self.entries)

    def read(self, start: int, end: int) -> list[Entry]:
        return [Entry(offset, value) for offset in range(start, end) if (value := self.entries[offset]) is not None]

    def committed(self) -> list[Entry]:
        return self.read(0, self.end)


class SimulatedSink:
    """State and checkpoint of each partition, moved together or not at all."""

    def __init__(self) -> None:
        self.state: dict[Partition, list[Entry]] = {partition: [] for partition in PARTITIONS}
        self.checkpoints: dict[Partition, Checkpoint] = {}
        self.is_down = False
        self.save()

    def save(self) -> None:
        """What a snapshot holds from now on."""
        self._saved = {partition: list(entries) for partition, entries in self.state.items()}, dict(self.checkpoints)

    def restore(self) -> None:
        """Nothing since then was ever written."""
        state, self.checkpoints = self._saved
        self.state = {partition: list(entries) for partition, entries in state.items()}
        self.save()

    def checkpoint(self, partition: Partition, log: LogIdentity) -> Checkpoint:
        return self.checkpoints.setdefault(partition, Checkpoint(Place(*partition, 0), log))

    def apply(self, batch: Batch) -> bool:
        """False, with nothing written, when the checkpoint is not where the batch begins."""
        current = self.checkpoints.get(batch.partition)
        if current is None or current.next_offset != batch.from_offset:
            return False
        self.state[batch.partition] += batch.records
        self.checkpoints[batch.partition] = current._replace(place=Place(*batch.partition, batch.next_offset))
        return True


class Worker:
    """One process: a hand-over, and a consumer and an agent as unkind as Kafka and the stores allow."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.handover = world.handover("counts")
        self.positions: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.refusals: dict[Partition, str] = {}
        self.rebalances: deque[Task] = deque()
        self.tasks: list[Task] = [self._poll()]
        if world.is_restored:
            self.tasks.append(self._look_at_the_store())
        self.is_frozen = False
        self._world = world
        self._chance = world.random
        self._with_agent: Counter[Partition] = Counter()

    def step(self) -> None:
        """One task goes to its next await."""
        number = int(self._chance.random() * (len(self.tasks) + bool(self.rebalances)))
        if number < len(self.tasks):
            if next(self.tasks[number], StopIteration) is StopIteration:
                del self.tasks[number]
        elif next(self.rebalances[0], StopIteration) is StopIteration:
            self.rebalances.popleft()

    def rebalance(self, given: Sequence[Partition]) -> None:
        """The group takes everything away and gives `given`, which reaches the listener a little later."""
        self.rebalances.append(self._rebalance(given))

    def _rebalance(self, given: Sequence[Partition]) -> Task:
        taken = list(self.positions)
        self.handover.revoked(taken)
        while self.handover.in_flight(taken) and self._chance.random() < 0.9:
            yield
        yield
        # The consumer starts from what Kafka has as committed, wherever that is, and fetches until it is paused.
        self.positions = {p: self._chance.randint(0, self._world.logs[p].end) for p in given}
        self.paused.clear()
        self.refusals.clear()
        self._carry_out(self.handover.assigned(given))

    def _poll(self) -> Task:
        while True:
            epochs = self.handover.reading()
            yield
            fetched: dict[Partition, tuple[list[Entry], int]] = {}
            for partition in epochs.keys() & self.positions.keys() - self.paused:
                log, position = self._world.logs[partition], self.positions[partition]
                if position > log.end:
                    self._carry_out(self.handover.out_of_range(partition))
                    continue
                if position == log.end:
                    continue
                to = min(log.end, position + self._chance.randint(1, FETCHED_AT_ONCE))
                # Now and then it hands out again what lies just before.
                again = self._chance.randint(0, min(2, position)) if self._chance.random() < 0.1 else 0
                fetched[partition] = log.read(position - again, to), to
                self.positions[partition] = to
            yield from self._slowly()
            for partition, (records, position) in sorted(fetched.items()):
                epoch = epochs[partition]
                self._carry_out(self.handover.fetched(partition, epoch, records, position))
                state = self.handover._held.get(partition)
                if state and len(state.queue) > QUEUED_BATCHES:
                    raise Wrong(f"{self.name} has queued {len(state.queue)} batches of {partition}")
            yield

    def _look_at_the_store(self) -> Task:
        while True:
            yield
            for partition, at_rest in self.handover.at_rest().items():
                yield from self._slowly()
                if self._world.sink.is_down:
                    break
                found = self._world.sink.checkpoints.get(partition)
                yield from self._slowly()
                went_back = found is None or found.next_offset < at_rest[1]
                if went_back and self.handover.at_rest().get(partition) == at_rest:
                    self._carry_out(self.handover.went_back())
                    break

    def _read_checkpoint(self, partition: Partition, epoch: int) -> Task:
        yield
        identity = self._world.logs[partition].identity
        yield from self._slowly()
        if self._world.sink.is_down:
            self._carry_out(self.handover.checkpoint_failed(partition, epoch))
            return
        checkpoint = self._world.sink.checkpoint(partition, identity)
        yield from self._slowly()
        # The end after the checkpoint: it may have moved past an end that was asked for before.
        log = Log(identity, 0, self._world.logs[partition].end)
        yield
        if partition in self.positions:
            self._carry_out(self.handover.checkpoint_read(partition, epoch, checkpoint, log))

    def _slowly(self) -> Task:
        """None, or many awaits: a whole rebalance may fit in."""
        while self._chance.random() < 0.5:
            yield

    def _process(self, batch: Batch) -> Task:
        yield
        self._with_agent[batch.partition] += 1
        if self._with_agent[batch.partition] > 1:
            raise Wrong(f"{self.name} has two batches of {batch.partition} in flight")
        yield
        if self._chance.random() < 0.02:
            answer = self.handover.failed
        elif self._world.sink.is_down:
            answer = self.handover.unavailable
        else:
            answer = self.handover.applied if self._world.sink.apply(batch) else self.handover.moved
            if self._chance.random() < 0.05:  # the store's answer, or the agent, is lost on the way back
                answer = self._chance.choice([self.handover.unavailable, self.handover.failed])
        yield
        self._with_agent[batch.partition] -= 1
        self._carry_out(answer(batch))

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Pause(partition):
                    self.paused.add(partition)
                case Resume(partition):
                    self.paused.discard(partition)
                case Seek(partition, offset):
                    self.positions[partition] = offset
                case Refuse(partition, why) if partition not in self._world.lost:
                    raise Wrong(f"{self.name} refuses {partition}, which lost nothing: {why}")
                case Refuse(partition, why):
                    self.refusals[partition] = why
                case ReadCheckpoint(partition, epoch, _):
                    self.tasks.append(self._read_checkpoint(partition, epoch))
                case Deliver(batch, _):
                    self.tasks.append(self._process(batch))


class World:
    """A log, a sink and some workers; `live` lets a seed's worth of things happen, `come_to_rest` heals all and waits."""

    def __init__(self, seed: int, handover: Callable[[str], Handover] = Handover) -> None:
        self.random = random.Random(seed)
        self.handover = handover
        self.logs = {p: SimulatedLog(LogIdentity("cluster", "topic-0", len(PARTITIONS))) for p in PARTITIONS}
        self.sink = SimulatedSink()
        self._numbers = count()
        self.workers: list[Worker] = []
        # Whoever looks at its store again mends its own mistakes, too: in every other world nobody does, and no store is restored.
        self.is_restored = seed % 2 == 1
        self.lost: dict[Partition, LogIdentity] = {}  # what was truncated or created anew, and which log it was
        for _ in range(self.random.randint(1, 3)):
            self._join()

    def live(self, steps: int = EVENTFUL_STEPS) -> None:
        happenings: Sequence[tuple[int, Callable[[], None]]] = [
            (1_000, self._step),
            (40, self._append),
            (8, self._abort),
            (6, self._rebalance),
            (2, self._join),
            (2, self._crash),
            (3, self._freeze),
            (6, self._thaw),
            (3, self._store_goes_down),
            (9, self._store_comes_back),
            (2, self._store_is_saved),
            (1, self._store_is_restored),
        ]
        weights, what = zip(*happenings, strict=True)
        for happening in self.random.choices(what, weights, k=steps):
            happening()
        if self.random.random() < 0.15:
            self._lose_log()
            for happening in self.random.choices(what, weights, k=steps // 4):
                happening()

    def come_to_rest(self) -> None:
        """The group is settled once, the store a little later, and then nothing disturbs. Raises Wrong when it never comes to rest."""
        for worker in self.workers:
            worker.is_frozen = False
        self._rebalance()
        self._step_until(lambda: not any(worker.rebalances for worker in self.workers))
        calm = (self._step, self._append, self._store_goes_down, self._store_comes_back, self._store_is_restored)
        for happening in self.random.choices(calm, (100, 10, 2, 2, 1), k=CALM_STEPS):
            happening()
        self._store_comes_back()
        self._step_until(self._is_at_rest)
        self._store_is_restored()
        self._step_until(self._is_at_rest)

    def _step_until(self, is_so: Callable[[], bool]) -> None:
        for step in range(MOST_STEPS):
            if step % STEPS_BETWEEN_LOOKS == 0 and is_so():
                return
            self._step()
        phases = {worker.name: {p: worker.handover.phase(p) for p in worker.handover.held} for worker in self.workers}
        raise Wrong(f"it never comes to rest: {phases}, {self.sink.checkpoints}")

    def check(self) -> None:
        """The sink holds the fold of the log, whole and once. Raises Wrong."""
        for partition, log in self.logs.items():
            state = self.sink.state[partition]
            if partition in self.lost:
                self._check_refused(partition)
            elif state != log.committed():
                raise Wrong(f"{partition}: the sink has {state}, the log {log.committed()}")

    def _check_refused(self, partition: Partition) -> None:
        if self.sink.checkpoints[partition].log != self.lost[partition] or "topic-1" in str(self.sink.state[partition]):
            raise Wrong(f"{partition} lost its log, and another was folded into what the first had left")
        (holder,) = (worker for worker in self.workers if partition in worker.handover.held)
        if "faust -A agents rebuild counts" not in holder.refusals.get(partition, ""):
            raise Wrong(f"{partition} lost its log, and no sentence names the way out: {holder.refusals}")

    def _is_at_rest(self) -> bool:
        return all(self._is_settled(partition) for partition in PARTITIONS)

    def _is_settled(self, partition: Partition) -> bool:
        checkpoint = self.sink.checkpoints.get(partition)
        if partition not in self.lost and (checkpoint is None or checkpoint.next_offset < self.logs[partition].end):
            return False
        phases = [phase for worker in self.workers if (phase := worker.handover.phase(partition))]
        return phases == [Phase.OPERATOR if partition in self.lost else Phase.RECORDS]

    def _step(self) -> None:
        if awake := [worker for worker in self.workers if not worker.is_frozen]:
            awake[int(self.random.random() * len(awake))].step()

    def _append(self) -> None:
        self._grow(lambda log, offset: f"{log.identity.topic_id} at {offset}", self.random.randint(1, 8))

    def _abort(self) -> None:
        self._grow(lambda log, offset: None, self.random.randint(1, 12))

    def _grow(self, value: Callable[[SimulatedLog, int], str | None], count: int) -> None:
        partition = self.random.choice(PARTITIONS)
        log = self.logs[partition]
        # One that was cut short and has grown past the checkpoint again cannot be told from one that never was.
        if not log.is_cut:
            log.entries += [value(log, log.end + i) for i in range(count)]

    def _rebalance(self) -> None:
        """Every partition to somebody who is awake; the frozen hear of it when thawed, and believe what they believed until then."""
        awake = [worker for worker in self.workers if not worker.is_frozen]
        owners = {partition: self.random.choice(awake) for partition in PARTITIONS} if awake else {}
        for worker in self.workers:
            worker.rebalance([partition for partition, owner in owners.items() if owner is worker])

    def _join(self) -> None:
        if len(self.workers) < MOST_WORKERS:
            self.workers.append(Worker(self, f"worker-{next(self._numbers)}"))
            self._rebalance()

    def _crash(self) -> None:
        """Whatever it was doing stays half done."""
        self.workers.remove(self.random.choice(self.workers))
        if not self.workers:
            self._join()
        self._rebalance()

    def _freeze(self) -> None:
        self.random.choice(self.workers).is_frozen = True
        self._rebalance()

    def _thaw(self) -> None:
        self.random.choice(self.workers).is_frozen = False

    def _store_goes_down(self) -> None:
        self.sink.is_down = True

    def _store_comes_back(self) -> None:
        self.sink.is_down = False

    def _store_is_saved(self) -> None:
        self.sink.save()

    def _store_is_restored(self) -> None:
        # One that knows another log, or a longer one, is an operator's matter.
        if self.is_restored and not self.lost:
            self.sink.restore()

    def _lose_log(self) -> None:
        """A log that was folded from is cut short, or created anew."""
        folded = [p for p, checkpoint in self.sink.checkpoints.items() if checkpoint.next_offset > 0]
        if not folded:
            return
        partition = self.random.choice(folded)
        log = self.logs[partition]
        self.lost[partition] = self.sink.checkpoints[partition].log
        if self.random.random() < 0.5:
            del log.entries[self.random.randrange(self.sink.checkpoints[partition].next_offset) :]
            log.is_cut = True
            return
        self.logs[partition] = SimulatedLog(log.identity._replace(topic_id="topic-1"))
        # A topic is not created anew under a consumer without a rebalance.
        self.workers.clear()
        self._join()


def run(seed: int, handover: Callable[[str], Handover] = Handover) -> None:
    """One course of events, to its rest and its verdict. Raises Wrong."""
    world = World(seed, handover)
    world.live()
    world.come_to_rest()
    world.check()


def run_each(seeds: Iterable[int], handover: Callable[[str], Handover] = Handover) -> None:
    """Raises the first failure with its seed."""
    for seed in seeds:
        try:
            run(seed, handover)
        except Exception as error:
            error.add_note(f"seed {seed}; again: ET_SEED={seed} make test k=whatever_happens")
            raise


def run_side_by_side(seeds: range) -> None:
    """The same on every core; a few hundred seeds at a time, so that a failure is told soon. Raises what `run_each` raises."""
    parts = [seeds[first : first + SEEDS_A_PART] for first in range(0, len(seeds), SEEDS_A_PART)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        for done in as_completed([processes.submit(run_each, part) for part in parts]):
            if error := done.exception():
                processes.shutdown(cancel_futures=True)
                raise error
