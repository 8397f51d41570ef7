"""Batches that come while another is being written are written together: the group commit of databases (DeWitt et al., "Implementation
Techniques for Main Memory Database Systems", SIGMOD 1984, §5.2).

Under light load a batch is written at once; under heavy load the cost of a call, or of a transaction, is shared by all partitions.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from projections.changes import Append, Change, Forget, Remove, Tally, Upserts
from projections.occurrences import Occurrences
from projections.sinks.sink import StoreUnavailable
from schemas.log import Place


class Batch(NamedTuple):
    """What a sink is to apply, and where: its checkpoint's move from `expected` to `next_offset`."""

    changes: Sequence[Change]
    expected: Place
    next_offset: int
    step: str | None = None

    @property
    def reach(self) -> int:
        """Of how many records it may be."""
        return self.next_offset - self.expected.offset

    @property
    def is_joinable(self) -> bool:
        """Whether its changes commute with those of other partitions, one by one; and no step that others look for is lost among many."""
        return self.step is None and not any(isinstance(change, Forget | Remove) for change in self.changes)


Waiting = tuple[Batch, "asyncio.Future[None]"]


class Together:
    """Writes by `write`: `side_by_side` calls at a time at most, each of no more than `most_records` unless they are of one batch."""

    def __init__(
        self, write: Callable[[Sequence[Batch]], Awaitable[None]], most_records: int, *, side_by_side: int = 1
    ) -> None:
        self._write = write
        self.most_records = most_records
        self._side_by_side = side_by_side
        self._waiting: deque[Waiting] = deque()
        self._writing: dict[asyncio.Task[None], Sequence[Waiting]] = {}

    async def join(self, batch: Batch) -> None:
        """Returns once `batch` is written. Raises what `write` raises of it: of several that fail together each is written alone, unless
        the store is away."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, written))
        self._begin()
        try:
            await written
        except asyncio.CancelledError:
            # Nobody waits for it any more; it is told once, as it may have to take something back.
            for task, group in self._writing.items():
                if group and all(of_one.cancelled() for _, of_one in group):
                    self._writing[task] = []
                    task.cancel()
            raise

    def _begin(self) -> None:
        if self._waiting and len(self._writing) < self._side_by_side:
            self._writing[asyncio.create_task(self._write_all())] = []

    async def _write_all(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._waiting:
                self._writing[task] = group = self._next_group()
                self._begin()
                await self._write_group(group)
        finally:
            del self._writing[task]
            self._begin()

    def _next_group(self) -> Sequence[Waiting]:
        group: list[Waiting] = []
        records = 0
        while self._waiting:
            batch, written = self._waiting[0]
            if group and (
                records + batch.reach > self.most_records or not batch.is_joinable or not group[0][0].is_joinable
            ):
                break
            self._waiting.popleft()
            if not written.done():
                group.append((batch, written))
                records += batch.reach
        return group

    async def _write_group(self, group: Sequence[Waiting]) -> None:
        if not group:
            return
        try:
            await self._write([batch for batch, _ in group])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, StoreUnavailable):
                for one in group:
                    await self._write_group([one])
                return
            for _, written in group:
                with contextlib.suppress(asyncio.InvalidStateError):
                    written.set_exception(error)
        else:
            for _, written in group:
                with contextlib.suppress(asyncio.InvalidStateError):
                    written.set_result(None)


def joined(parts: Sequence[Sequence[Change]]) -> Sequence[Change]:
    """The changes of all. What stands for many rows, and commutes, is one change for all of them: a statement, not one a partition."""
    if len(parts) == 1:
        return parts[0]
    changes: list[Change] = []
    tallies: dict[Hashable, list[Tally]] = defaultdict(list)
    of_rows: dict[Hashable, list[Append | Upserts]] = defaultdict(list)
    for part in parts:
        for change in part:
            if isinstance(change, Tally):
                tallies[change.table, change.key_columns, change.column].append(change)
            elif isinstance(change, Append | Upserts):
                of_rows[type(change), change._replace(rows=())].append(change)
            else:
                changes.append(change)
    changes += (alike[0]._replace(counts=_added_up([tally.counts for tally in alike])) for alike in tallies.values())
    for same in of_rows.values():
        changes.append(same[0]._replace(rows=[row for change in same for row in change.rows]))
    return changes


def _added_up(parts: Sequence[Mapping[Any, int]]) -> Mapping[Any, int]:
    uncounted = [part for part in parts if isinstance(part, Occurrences)]
    if len(uncounted) == len(parts):
        return Occurrences.together(uncounted)
    counts: Counter[Any] = Counter()
    for part in parts:
        counts.update(part)
    return counts
