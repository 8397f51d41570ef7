"""An operator decides about parked records: each decision is an event, for whoever folds."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence, Set
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from agents.decisions import HOME, DecisionsOfWorker, Ruling
from agents.handover import Partition
from agents.log_ends import LogEnds
from agents.parked import Found
from agents.parking import WAITS_BEHIND
from agents.reading import read_records
from agents.registry import NotNow
from compose.log import EventLog
from compose.transactions import Transactions
from projections.sinks.postgres import reaching_postgres
from schemas.bounds import Id
from schemas.events import Decision, RecordDiscarded, RecordRetried, RecordRetriedInPlace, ViewRetried
from schemas.log import Place, moment_of
from schemas.partitions import partition_of
from schemas.streams import streams

APPENDED_AT_ONCE = 200
MARKED_AT_ONCE = 500
ID = TypeAdapter(Id)

Word = Literal["retry", "discard"]


class Ruled(NamedTuple):
    """How many records were decided about; of how many a decision is on its way already; how many wait behind another; and how many are
    retries themselves, which are not retried."""

    decided: int
    on_their_way: int
    waiting: int
    marks: int


class View(NamedTuple):
    """What is to be known of a parked view from where it is retried on."""

    view_id: str
    recorded_at: datetime


class CarriedOut(NamedTuple):
    """What had been carried out before it was looked what is parked, by the full name of each version: the decisions before an offset;
    and, by their offsets, those that came to nothing where they are marked."""

    before: Mapping[str, int]
    in_vain: Mapping[str, Set[int]]

    def holds(self, version: str, ruling: Ruling) -> bool:
        """Whether `ruling`, about what is still parked, is among them."""
        if ruling.is_marked:
            return ruling.at in self.in_vain.get(version, ())
        return ruling.at < self.before.get(version, 0)


class Operator:
    """Appends decisions. The retry of a view is marked where the view lies, in one transaction with the decision."""

    def __init__(
        self,
        log: EventLog,
        transactions: Transactions,
        ends: LogEnds,
        decisions: DecisionsOfWorker,
        carried_out: CarriedOut,
    ) -> None:
        self._log = log
        self._transactions = transactions
        self._ends = ends
        self._decisions = decisions
        self._carried_out = carried_out

    async def decide(
        self, word: Word, found: Iterable[Found], *, by: str, why: str | None, named: Collection[Place] = ()
    ) -> Ruled:
        """Decide about what is `found`. What only waits behind another record comes by itself: it is discarded only where it is `named`,
        and never retried; and not while a decision about another record of its partition is on its way, which may let it follow.

        Raises LogUnavailable, StoreUnavailable, KafkaError; asked again, it goes on with what is left.
        """
        await self._decisions.refresh()
        wanted: dict[tuple[Place, str], list[Found]] = defaultdict(list)
        waiting, on_their_way, marks = set(), set(), set()
        for one in found:
            if one.reason == WAITS_BEHIND and (word == "retry" or one.place not in named):
                waiting.add(one.place)
            elif one.is_mark and word == "retry":
                marks.add(one.place)
            elif self._is_on_its_way(one):
                on_their_way.add(one.place)
            else:
                wanted[one.place, one.reason].append(one)
        partitions = {Partition(place.topic, place.partition) for place, _ in wanted}
        ends = await self._ends.ends(partitions)
        patient: list[Decision] = []
        others: list[Decision] = []
        marked: list[tuple[Decision, View]] = []
        for (place, reason), each in sorted(wanted.items()):
            view = await self._view(each[0]) if word == "retry" else None
            projections, end = {one.projection for one in each}, ends[Partition(*place[:2])]
            event = decision(word, place, reason, projections, end, by, why, marked=view is not None)
            if view is not None:
                marked.append((event, view))
            else:
                (patient if reason == WAITS_BEHIND else others).append(event)
        # What waits is decided about while it does: a decision about what it waits behind would let it follow.
        for alike in (patient, others):
            for first in range(0, len(alike), APPENDED_AT_ONCE):
                await asyncio.gather(*map(self._log.append, alike[first : first + APPENDED_AT_ONCE]))
        for first in range(0, len(marked), MARKED_AT_ONCE):
            await self._append_marked(marked[first : first + MARKED_AT_ONCE])
        return Ruled(len({place for place, _ in wanted}), len(on_their_way), len(waiting), len(marks))

    async def _append_marked(self, marked: Sequence[tuple[Decision, View]]) -> None:
        async with self._transactions.begin() as transaction:
            appended = await transaction.append([event for event, _ in marked])
            await transaction.append(
                [mark(event, at.place.offset, view) for (event, view), at in zip(marked, appended, strict=True)]
            )

    async def _view(self, one: Found) -> View | None:
        """What its mark says of a parked view. None of what can be none: it lies on another topic, or has no key that belongs there."""
        topic = streams().topics[one.place.topic]
        if topic.once_within is None:
            return None
        record = await self._decisions.record(one.place) if one.is_blank else one.record
        try:
            view_id = ID.validate_python((record.key or b"").decode())
        except ValueError:
            return None
        if partition_of(view_id.encode(), topic.partitions) != one.place.partition:
            return None
        read = read_records([record], Partition(*one.place[:2]), topic.partitions)
        recorded_at_ms = read.decoded[0].recorded.recorded_at_ms if read.decoded else record.timestamp
        return View(view_id, moment_of(recorded_at_ms))

    def _is_on_its_way(self, one: Found) -> bool:
        version = f"{one.projection}_v{one.version}"
        about = self._decisions.newest_of(one.projection, Partition(*one.place[:2]))
        if one.reason == WAITS_BEHIND:  # it may follow by a decision about any other
            newest = max(about.values(), key=lambda ruling: ruling.at, default=None)
        else:
            newest = about.get(one.place.offset)
        return one.is_taken or (newest is not None and not self._carried_out.holds(version, newest))


@asynccontextmanager
async def alone(pool: Any) -> AsyncIterator[None]:
    """As long as this lasts, nobody else decides: nobody appends a decision about what another has just decided.

    Raises NotNow while somebody else does, StoreUnavailable.
    """
    async with AsyncExitStack() as held:
        with reaching_postgres():
            connection = await held.enter_async_context(pool.acquire())
            await held.enter_async_context(connection.transaction())
            lock = "select pg_try_advisory_xact_lock(hashtextextended(current_schema() || 'deciding', 0))"
            is_ours = await connection.fetchval(lock)
        if not is_ours:
            raise NotNow("somebody else decides about parked records just now; ask again")
        yield


def decision(
    word: Word,
    place: Place,
    reason: str,
    projections: Iterable[str],
    judged_to: int,
    by: str,
    why: str | None,
    *,
    marked: bool = False,
) -> Decision:
    """The event of one decision; a retry may be `marked`. Raises ValidationError for a name or a reason out of bounds."""
    fields = {
        "occurred_at": datetime.now(UTC),
        "record": place.id,
        "projections": sorted(projections),
        "parked_for": reason,
        "by": by,
        "why": why,
    }
    if word == "retry":
        retried = RecordRetriedInPlace if marked else RecordRetried
        return retried.model_validate({**fields, "judged_to": judged_to})
    return RecordDiscarded.model_validate(fields)


def mark(retried: Decision, at: int, view: View) -> ViewRetried:
    """The mark of the decision that lies at `at`."""
    return ViewRetried(
        occurred_at=retried.occurred_at,
        view_id=view.view_id,
        record=retried.record,
        recorded_at=view.recorded_at,
        decision=at,
        projections=retried.projections,
    )


CARRIED_OUT = (HOME.topic, HOME.number)
"""Whose checkpoint says how far a version has carried decisions out."""
