"""Parking in memory: the same promises as in Postgres, for the folds that are tried without a server."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

from agents.decisions import HOME as DECISIONS_HOME
from agents.handover import Partition
from agents.parking import Beyond, Later, NotYet, Parked, Undecided
from projections.sinks.sink import Step, StoreUnavailable
from schemas.log import Place

numbers = count(1)


class Written(NamedTuple):
    """What a step has written down."""

    moves: Place
    rows: list[Parked]


class Lot:
    """One projection's parking. It outlives the workers; `is_down` as Postgres may be."""

    def __init__(self) -> None:
        self.rows: dict[Place, Parked] = {}
        self.steps: dict[str, Written] = {}
        self.is_down = False
        self._turns: dict[Partition, asyncio.Lock] = {}

    @property
    def parked(self) -> list[Parked]:
        return [self.rows[place] for place in sorted(self.rows)]

    @asynccontextmanager
    async def turn(
        self, partition: Partition, moves: Place, concerned: Collection[int] | None
    ) -> AsyncIterator["Turn"]:
        await self._answer()
        async with self._turns.setdefault(partition, asyncio.Lock()):
            others = (step for step in self.steps.values() if step.moves[:2] != moves[:2])
            for step in others:
                offsets = [row.place.offset for row in step.rows if row.place[:2] == partition]
                if offsets and (concerned is None or not set(concerned).isdisjoint(offsets)):
                    raise NotYet("another step has something written down", Partition(*step.moves[:2]))
            turn = Turn(self, partition, moves)
            yield turn
            self.steps |= turn.written

    async def carry_out(self, step: str) -> None:
        await self._answer()
        if step in self.steps:
            self.rows |= {row.place: row for row in self.steps.pop(step).rows}

    async def written_down(self, moves: Place, partition: Partition) -> dict[str, int]:
        await self._answer()
        from_there = ((name, step.rows) for name, step in self.steps.items() if step.moves == moves)
        offsets = {name: [row.place.offset for row in rows if row.place[:2] == partition] for name, rows in from_there}
        return {name: max(of_step) for name, of_step in offsets.items() if of_step}

    async def give_up(self, steps: Sequence[str]) -> None:
        await self._answer()
        for step in steps:
            self.steps.pop(step, None)

    async def settle(self, at: Place, newest: Step) -> None:
        await self._answer()
        if newest.name is not None:
            await self.carry_out(newest.name)
        for name, step in list(self.steps.items()):
            if step.moves[:2] == at[:2] and step.moves.offset < at.offset:
                del self.steps[name]

    async def offsets(self, partition: Partition, to_offset: int) -> list[int]:
        await self._answer()
        return [p.offset for p in self.rows if p[:2] == partition and p.offset < to_offset]

    async def holds_back(self, partition: Partition) -> bool:
        await self._answer()
        return any(place[:2] == partition and row.outcome is None for place, row in self.rows.items())

    async def beyond(self, at: Place) -> Beyond:
        await self._answer()
        found = []
        for place, row in self.rows.items():
            decided = None if row.decided_by is None else Place(*DECISIONS_HOME, row.decided_by)
            decided = decided if row.mark is None else place._replace(offset=row.mark)
            is_gone, is_open = (where is not None and where[:2] == at[:2] and where >= at for where in (place, decided))
            if is_gone or is_open:
                found.append(Later(*place, row, is_gone))
        return Beyond(
            found, [name for name, step in self.steps.items() if step.moves[:2] == at[:2] and step.moves > at]
        )

    async def take_back(self, beyond: Beyond) -> None:
        await self._answer()
        for step in beyond.steps:
            self.steps.pop(step, None)
        for *place, row, is_gone in beyond.rows:
            if self.rows.get(Place(*place)) is not row:
                continue
            if is_gone:
                del self.rows[row.place]
            else:
                self.rows[row.place] = row._replace(outcome=None, decided_by=None, decided_at=None, mark=None)

    async def meet(self, poison: Sequence[Parked]) -> None:
        """As they come."""

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailable("postgres", "it is down")


class Turn:
    def __init__(self, lot: Lot, partition: Partition, moves: Place) -> None:
        self.written: dict[str, Written] = {}
        self._lot, self._partition, self._moves = lot, partition, moves

    async def undecided(self) -> list[Undecided]:
        return [
            Undecided(row.place.offset, row.record.key, row.reason)
            for row in self._lot.parked
            if row.place[:2] == self._partition and row.outcome is None
        ]

    async def at(self, offsets: Collection[int]) -> list[Parked]:
        return [row for row in self._lot.parked if row.place[:2] == self._partition and row.place.offset in offsets]

    async def write_down(self, parked: Iterable[Parked]) -> str:
        name = f"step-{next(numbers)}"
        self.written[name] = Written(self._moves, list(parked))
        return name


class NoDecisions:
    """A log without any."""

    async def refresh(self, *, to_offset: int | None = None) -> None:
        """There is nothing to read."""

    def newest_of(self, projection: str, partition: Partition) -> dict[int, Any]:
        return {}

    def decided(self, projection: str, partition: Partition, from_offset: int, to_offset: int) -> list[int]:
        return []

    def is_superseded(self, projection: str, record: str, at: int) -> bool:
        return False
