"""An operator decides about parked records: each decision is an event, for whoever folds."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from agents.decisions import HOME, DecisionsOfWorker
from agents.handover import Partition
from agents.log_ends import LogEnds
from agents.parked import Found
from agents.parking import AWAITS_DECISION, WAITS_BEHIND
from agents.registry import NotNow
from compose.log import EventLog
from projections.sinks.postgres import reaching_postgres
from schemas.events import Decision, RecordDiscarded, RecordRetried
from schemas.log import Place

APPENDED_AT_ONCE = 200

Word = Literal["retry", "discard"]


class Ruled(NamedTuple):
    """How many records were decided about; of how many a decision is on its way already; and how many wait behind another."""

    decided: int
    on_their_way: int
    waiting: int


class Ruling:
    """Appends decisions. `checkpoints` tells how far each version, by its full name, had carried decisions out before it was looked what
    is parked."""

    def __init__(
        self, log: EventLog, ends: LogEnds, decisions: DecisionsOfWorker, checkpoints: Mapping[str, int]
    ) -> None:
        self._log = log
        self._ends = ends
        self._decisions = decisions
        self._checkpoints = checkpoints

    async def decide(
        self, word: Word, found: Iterable[Found], *, by: str, why: str | None, named: Collection[Place] = ()
    ) -> Ruled:
        """Decide about what is `found`. What only waits behind another record comes by itself: it is discarded only where it is `named`,
        and never retried; and not while a decision about another record of its partition is on its way, which may let it follow.

        Raises LogUnavailable, StoreUnavailable, KafkaError; asked again, it goes on with what is left.
        """
        await self._decisions.refresh()
        wanted: dict[tuple[Place, str], set[str]] = defaultdict(set)
        waiting, on_their_way = set(), set()
        for one in found:
            if one.reason == WAITS_BEHIND and (word == "retry" or one.place not in named):
                waiting.add(one.place)
            elif one.reason == AWAITS_DECISION or self._is_on_its_way(one):
                on_their_way.add(one.place)
            else:
                wanted[one.place, one.reason].add(one.projection)
        partitions = {Partition(place.topic, place.partition) for place, _ in wanted}
        ends = await self._ends.ends(partitions)
        patient: list[Decision] = []
        others: list[Decision] = []
        for (place, reason), projections in sorted(wanted.items()):
            event = decision(word, place, reason, projections, ends[Partition(*place[:2])], by, why)
            (patient if reason == WAITS_BEHIND else others).append(event)
        # What waits is decided about while it does: a decision about what it waits behind would let it follow.
        for alike in (patient, others):
            for first in range(0, len(alike), APPENDED_AT_ONCE):
                await asyncio.gather(*map(self._log.append, alike[first : first + APPENDED_AT_ONCE]))
        return Ruled(len({place for place, _ in wanted}), len(on_their_way), len(waiting))

    def _is_on_its_way(self, one: Found) -> bool:
        carried_out_to = self._checkpoints.get(f"{one.projection}_v{one.version}", 0)
        if one.reason == WAITS_BEHIND:
            about = self._decisions.newest_of(one.projection, Partition(*one.place[:2])).values()
            newest = max((ruling.at for ruling in about), default=None)
        else:
            newest = self._decisions.newest(one.projection, one.place.id)
        return one.is_taken or (newest is not None and newest >= carried_out_to)


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
    word: Word, place: Place, reason: str, projections: Iterable[str], judged_to: int, by: str, why: str | None
) -> Decision:
    """The event of one decision. Raises ValidationError for a name or a reason out of bounds."""
    fields = {
        "occurred_at": datetime.now(UTC),
        "record": place.id,
        "projections": sorted(projections),
        "parked_for": reason,
        "by": by,
        "why": why,
    }
    if word == "retry":
        return RecordRetried.model_validate({**fields, "judged_to": judged_to})
    return RecordDiscarded.model_validate(fields)


CARRIED_OUT = (HOME.topic, HOME.number)
"""Whose checkpoint says how far a version has carried decisions out."""
