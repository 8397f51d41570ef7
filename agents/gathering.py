"""A sink that is written seldom: what batches add up to is gathered, and written once it is much.

For who folds millions of records in a row. The more of them a step holds, the more add to the same rows, and each row is written once: what
is gathered of several partitions comes to the sink at once, which writes them together if it can.
What is gathered and lost, as when the process is killed, is folded again from the checkpoint.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import NamedTuple

from agents.aside import thinking
from agents.handover import Partition
from projections.changes import Append, Change, Tally, Upserts
from projections.occurrences import Occurrences
from projections.sinks.sink import ChangeRefused, Checkpoint, CheckpointMoved, LogIdentity, Sink, Step, StoreUnavailable
from projections.sinks.together import Batch, joined
from schemas.log import Place
from schemas.streams import DECISIONS

MOST_ROWS = 15_000  # of a partition
MOST_PARTS = 32  # before they are added up
MOST_RECORDS = 150_000  # of all partitions: what is folded again after a kill


class Gathering:
    """`sink`, whose checkpoints may lie behind what `apply` was given, until `write` or a question about them.

    Its methods raise what those of `sink` do. `apply` may raise it for what was gathered before: the checkpoint read again tells where to
    go on. What others look for is written as it comes: steps with a name, and decisions.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        most_rows: int = MOST_ROWS,
        most_records: int = MOST_RECORDS,
        most_parts: int = MOST_PARTS,
    ) -> None:
        self.needs_offsets = sink.needs_offsets
        self._sink = sink
        self._most_rows = most_rows
        self._most_records = most_records
        self._most_parts = most_parts
        self._gathered: dict[Partition, _Gathered] = {}
        self._refused_to: dict[Partition, int] = {}
        self._untold: dict[Partition, CheckpointMoved] = {}  # for who goes on with each
        self._turns: dict[Partition, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prepare(self) -> None:
        await self._sink.prepare()

    async def checkpoint(self, topic: str, partition: int, log: LogIdentity) -> Checkpoint:
        self._untold.pop(Partition(topic, partition), None)
        await self.write(topic, partition)
        return await self._sink.checkpoint(topic, partition, log)

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        at, batch = Partition(*expected[:2]), Batch(changes, expected, next_offset, step)
        async with self._turns[at]:
            self._tell(at)
            gathered = self._gathered.get(at)
            if gathered and gathered.next_offset != expected.offset:
                raise CheckpointMoved("what is gathered", expected)
            is_gathered = (
                batch.is_joinable
                and offsets is None
                and expected.topic != DECISIONS
                and expected.offset >= self._refused_to.get(at, 0)
            )
            if is_gathered:
                self._gathered[at] = found = await thinking(batch.reach, self._with, gathered, batch)
                if found.rows >= self._most_rows:
                    # While the store writes them, others are thought about.
                    await self._write(at)
            else:
                await self._write(at)
                await self._sink.apply(changes, expected=expected, next_offset=next_offset, offsets=offsets, step=step)
        if self._is_much():
            await self._write_all(at)

    async def write(self, topic: str, partition: int) -> None:
        """What is gathered of a partition. Nothing is left of it but for StoreUnavailable: then it can be written later."""
        at = Partition(topic, partition)
        async with self._turns[at]:
            self._tell(at)
            await self._write(at)

    async def newest_step(self, topic: str, partition: int) -> Step:
        await self.write(topic, partition)
        return await self._sink.newest_step(topic, partition)

    async def tick(self, now: datetime) -> None:
        await self._sink.tick(now)

    async def drop(self) -> None:
        self._gathered.clear()
        await self._sink.drop()

    def condensed(self, changes: Sequence[Change]) -> Sequence[Change]:
        return self._sink.condensed(changes)

    def _with(self, gathered: "_Gathered | None", batch: Batch) -> "_Gathered":
        before = gathered or _Gathered(batch.expected, batch.expected.offset)
        return before.and_then(self._sink.condensed(batch.changes), batch.next_offset, self._most_parts)

    def _is_much(self) -> bool:
        return sum(gathered.reach for gathered in self._gathered.values()) >= self._most_records

    def _tell(self, at: Partition) -> None:
        if moved := self._untold.pop(at, None):
            raise moved

    async def _write_all(self, at: Partition) -> None:
        """Raises what comes of `at`; whoever goes on with another partition hears of that one then."""
        gathered = sorted({*self._gathered, at})
        async with AsyncExitStack() as turns:
            for each in gathered:
                await turns.enter_async_context(self._turns[each])
            if not self._is_much():
                return  # another was first
            # Begun in one breath.
            ended = await asyncio.gather(*map(self._write, gathered), return_exceptions=True)
        for each, outcome in zip(gathered, ended, strict=True):
            if isinstance(outcome, CheckpointMoved) and each != at:
                self._untold[each] = outcome
            elif outcome is not None and (each == at or not isinstance(outcome, StoreUnavailable)):
                raise outcome

    async def _write(self, at: Partition) -> None:
        gathered = self._gathered.get(at)
        if gathered is None:
            return
        try:
            await self._sink.apply(gathered.changes, expected=gathered.expected, next_offset=gathered.next_offset)
        except CheckpointMoved:
            del self._gathered[at]
            raise
        except ChangeRefused as refused:
            # Which event is behind it is found batch by batch.
            del self._gathered[at]
            self._refused_to[at] = gathered.next_offset
            raise CheckpointMoved(str(refused), gathered.expected) from refused
        del self._gathered[at]


class _Gathered(NamedTuple):
    """The changes of one partition from a place in its log on, as they came or, now and then, as what they add up to."""

    expected: Place
    next_offset: int
    parts: tuple[Sequence[Change], ...] = ()
    rows: int = 0

    @property
    def reach(self) -> int:
        return self.next_offset - self.expected.offset

    @property
    def changes(self) -> Sequence[Change]:
        return joined(self.parts)

    def and_then(self, changes: Sequence[Change], next_offset: int, most_parts: int) -> "_Gathered":
        """With what comes next. What is there already is looked at again only where the parts are so many."""
        parts, rows = (*self.parts, changes), self.rows + _rows_in(changes)
        if len(parts) >= most_parts:
            parts = (joined(parts),)
            rows = _rows_in(parts[0])
        return _Gathered(self.expected, next_offset, parts, rows)


def _rows_in(changes: Sequence[Change]) -> int:
    return sum(map(_rows_of, changes))


def _rows_of(change: Change) -> int:
    match change:
        case Tally(counts=Occurrences()):
            return 0  # a few bytes each, until they are counted
        case Tally():
            return len(change.counts)
        case Append() | Upserts():
            return len(change.rows)
        case _:
            return 1
