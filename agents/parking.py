"""Records that could not be folded, whole, and what became of them.

A step that parks or decides is written down first, under a name of its own; the name moves with the checkpoint, in the store that the
projection is folded into. What was written down is carried out once the step is taken, and only then: a worker that dies between the
two leaves the name behind, and whoever comes next knows by it whether the step was taken.
"""

import base64
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from agents.handover import Partition
from projections.projection import Projection
from projections.sinks.parked_forgetting import blanked, forgotten_among, names_in
from projections.sinks.postgres import reaching_postgres
from projections.sinks.sink import Step
from schemas.log import Place, milliseconds_of, moment_of
from schemas.records import Record

WAITS_BEHIND = "waits-behind"
AWAITS_DECISION = "awaits-decision"
PATIENT = (WAITS_BEHIND, AWAITS_DECISION)
"""Reasons that are no error of the record itself."""

OF_RECORD = """topic, partition, log_offset, recorded_at, key, value, headers, reason, detail, waits_for, outcome, decided_by, decided_at,
    mark, is_blank"""
WRITE_DOWN = f"""
insert into parking_steps (step, moves_topic, moves_partition, from_offset, projection, version, {OF_RECORD})
values ({", ".join(f"${i}" for i in range(1, 22))})
"""
CARRY_OUT = f"""
with taken as (delete from parking_steps where projection = $1 and version = $2 and step = $3 returning *)
insert into parked (projection, version, {OF_RECORD})
select projection, version, {OF_RECORD} from taken
on conflict (projection, version, topic, partition, log_offset) do update set
    reason = excluded.reason, detail = excluded.detail, waits_for = excluded.waits_for,
    outcome = excluded.outcome, decided_by = excluded.decided_by, decided_at = excluded.decided_at, mark = excluded.mark
"""
NEVER_TAKEN = """
delete from parking_steps
where projection = $1 and version = $2 and moves_topic = $3 and moves_partition = $4 and from_offset < $5
"""
WRITTEN_DOWN = """
select step, max(log_offset) from parking_steps
where projection = $1 and version = $2 and (moves_topic, moves_partition, from_offset) = ($3, $4, $5) and (topic, partition) = ($6, $7)
group by step
"""
STEPS_BEYOND = """
select distinct step from parking_steps
where projection = $1 and version = $2 and (moves_topic, moves_partition) = ($3, $4) and from_offset > $5
"""
ANOTHERS_STEP = """
select moves_topic, moves_partition from parking_steps
where projection = $1 and version = $2 and topic = $3 and partition = $4 and (moves_topic, moves_partition) <> ($5, $6)
and ($7::bigint[] is null or log_offset = any($7))
limit 1
"""
OF_PARTITION = "projection = $1 and version = $2 and topic = $3 and partition = $4"
UNDECIDED = f"select log_offset, key, reason from parked where {OF_PARTITION} and outcome is null order by log_offset"
AT_OFFSETS = f"select {OF_RECORD} from parked where {OF_PARTITION} and log_offset = any($5::bigint[])"
OFFSETS = f"select log_offset from parked where {OF_PARTITION} and log_offset < $5"
# A row that was written over meanwhile has another xmin.
LATER = """
select topic, partition, log_offset, xmin::text as written_by, (topic, partition) = ($3, $4) and log_offset >= $5 as is_gone from parked
where projection = $1 and version = $2
and ((topic, partition) = ($3, $4) and (log_offset >= $5 or mark >= $5) or $3 = 'decisions' and mark is null and decided_by >= $5)
"""
THESE = """
projection = $1 and version = $2 and (topic, partition, log_offset, xmin::text) in (
    select * from unnest($3::text[], $4::int[], $5::bigint[], $6::text[])
)
"""
FORGET = f"delete from parked where {THESE}"
REOPEN = f"update parked set outcome = null, decided_by = null, decided_at = null, mark = null where {THESE}"


class Parked(NamedTuple):
    """A record that was not folded at its place. `reason` is a fixed word, `detail` a sentence.

    `outcome` says what became of it by the decision at `decided_by`, recorded at `decided_at`: folded, duplicate, future or discarded.
    Until then they are None. `mark` is the offset of the `ViewRetried` where that was, if it was at one. `is_blank`: a viewer whom the
    record names was forgotten, and here has stars for a name.
    """

    place: Place
    record: Record
    reason: str
    detail: str
    waits_for: int | None = None
    outcome: str | None = None
    decided_by: int | None = None
    decided_at: datetime | None = None
    mark: int | None = None
    is_blank: bool = False


class Undecided(NamedTuple):
    """What has to be known of a parked record that nobody has decided about, before the next ones are folded."""

    offset: int
    key: bytes | None
    reason: str


class KeptRecord(NamedTuple):
    """A record as it was read from the log."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]


class Later(NamedTuple):
    """A row as it was `written_by` somebody; `is_gone` if it was parked behind a place, else it was decided there."""

    topic: str
    partition: int
    offset: int
    written_by: Any
    is_gone: bool


class Beyond(NamedTuple):
    """What there is behind a place; `steps` are those that would move the checkpoint from there."""

    rows: Sequence[Later]
    steps: Sequence[str]


class NotYet(Exception):
    """This stretch has to wait until another partition of the same projection has come further; nothing was changed.

    `moves` is the partition whose step is in the way, if one is: it may have been left behind by a worker that died.
    """

    def __init__(self, why: str, moves: Partition | None = None) -> None:
        super().__init__(why)
        self.moves = moves


class Turn:
    """What is parked of one partition, looked at and added to while nobody else does."""

    def __init__(self, connection: Any, version: tuple[str, int], partition: Partition, moves: Place) -> None:
        self._connection = connection
        self._version = version
        self._partition = partition
        self._moves = moves

    async def undecided(self) -> list[Undecided]:
        """In the order of the log."""
        rows = await self._connection.fetch(UNDECIDED, *self._version, *self._partition)
        return [Undecided(*row) for row in rows]

    async def at(self, offsets: Collection[int]) -> list[Parked]:
        """Those of these offsets that are or were parked."""
        rows = await self._connection.fetch(AT_OFFSETS, *self._version, *self._partition, list(offsets))
        return list(map(_parked, rows))

    async def write_down(self, parked: Iterable[Parked]) -> str:
        """Returns the name of the step that this belongs to."""
        step, parked = uuid4().hex, list(parked)
        forgotten = await forgotten_among(
            self._connection, names_in(*(piece for one in parked for piece in _told(one)))
        )
        rows = [(step, *self._moves, *self._version, *_row(_without(forgotten, one))) for one in parked]
        await self._connection.executemany(WRITE_DOWN, rows)
        return step


class Parking:
    """What one version of a projection has parked, in Postgres. Every method raises StoreUnavailable when it is down."""

    def __init__(self, pool: Any, projection: Projection) -> None:
        self._pool = pool
        self._version = projection.name, projection.version

    @asynccontextmanager
    async def turn(self, partition: Partition, moves: Place, concerned: Collection[int] | None) -> AsyncIterator[Turn]:
        """The one turn that somebody has on what is parked of `partition`, for the step that moves the checkpoint from `moves`.

        Raises NotYet while a step that moves another checkpoint has something written down, and not carried out, of the offsets that are
        `concerned`: with None, where the order matters, of any.
        """
        name = f"parking {self._version} {partition}"
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(
                    "select pg_advisory_xact_lock(hashtextextended(current_schema() || $1, 0))", name
                )
                offsets = None if concerned is None else list(concerned)
                if another := await connection.fetchrow(ANOTHERS_STEP, *self._version, *partition, *moves[:2], offsets):
                    raise NotYet(f"a step of {another} has something of {partition} written down", Partition(*another))
                yield Turn(connection, self._version, partition, moves)

    async def carry_out(self, step: str) -> None:
        """The step was taken: what was written down is so."""
        with reaching_postgres():
            await self._pool.execute(CARRY_OUT, *self._version, step)

    async def written_down(self, moves: Place, partition: Partition) -> dict[str, int]:
        """The steps that would move a checkpoint from `moves`, each with the last offset of `partition` that it has written down."""
        with reaching_postgres():
            rows = await self._pool.fetch(WRITTEN_DOWN, *self._version, *moves, *partition)
        return dict(map(tuple, rows))

    async def give_up(self, steps: Sequence[str]) -> None:
        """Nobody can take these any more."""
        with reaching_postgres():
            await self._pool.execute("delete from parking_steps where step = any($1)", steps)

    async def settle(self, at: Place, newest: Step) -> None:
        """The checkpoint is at `at`, where `newest` brought it: what that step wrote down is carried out, and what can never be taken any
        more is dropped. Anyone may do so."""
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                if newest.name is not None:
                    await connection.execute(CARRY_OUT, *self._version, newest.name)
                await connection.execute(NEVER_TAKEN, *self._version, *at)

    async def offsets(self, partition: Partition, to_offset: int) -> list[int]:
        """The offsets before `to_offset` that are or were parked."""
        with reaching_postgres():
            rows = await self._pool.fetch(OFFSETS, *self._version, *partition, to_offset)
        return [row[0] for row in rows]

    async def holds_back(self, partition: Partition) -> bool:
        """Whether anything of the partition is undecided."""
        with reaching_postgres():
            found: bool = await self._pool.fetchval(f"select exists ({UNDECIDED})", *self._version, *partition)
        return found

    async def beyond(self, at: Place) -> Beyond:
        """What was parked, or decided, behind `at`: in an earlier life of the store, if the checkpoint, read after this, is there."""
        with reaching_postgres():
            rows = await self._pool.fetch(LATER, *self._version, *at)
            steps = await self._pool.fetch(STEPS_BEYOND, *self._version, *at)
        return Beyond([Later(*row) for row in rows], [step for (step,) in steps])

    async def take_back(self, beyond: Beyond) -> None:
        """Nothing of an earlier life holds, as the log is folded on from before: what was parked is not, and what was decided is open."""
        with reaching_postgres():
            for sql, is_gone in ((FORGET, True), (REOPEN, False)):
                rows = [row[:4] for row in beyond.rows if row.is_gone is is_gone]
                if rows:
                    await self._pool.execute(sql, *self._version, *map(list, zip(*rows, strict=True)))
        if beyond.steps:
            await self.give_up(beyond.steps)

    async def meet(self, poison: Sequence[Parked]) -> None:
        """Records are met that cannot be folded, before they are parked: a worker takes them as they come, a rebuild may not."""


def _told(parked: Parked) -> list[bytes | None]:
    """Everything in which a name may stand."""
    record = parked.record
    return [record.key, record.value, parked.detail.encode(), *(value for _, value in record.headers)]


def _without(forgotten: AbstractSet[str], parked: Parked) -> Parked:
    """The same, with stars for the names of these viewers."""
    if not forgotten & names_in(*_told(parked)):
        return parked
    record = parked.record
    blank = KeptRecord(
        *parked.place[1:],
        record.timestamp,
        blanked(record.key, forgotten),
        blanked(record.value, forgotten),
        [(name, blanked(value, forgotten)) for name, value in record.headers],
    )
    detail = blanked(parked.detail.encode(), forgotten) or b""
    return parked._replace(record=blank, detail=detail.decode(), is_blank=True)


def _row(parked: Parked) -> tuple[Any, ...]:
    place, record, reason, detail, *decided = parked
    headers = [
        [_storable(name), None if value is None else base64.b64encode(value).decode()] for name, value in record.headers
    ]
    recorded_at = moment_of(record.timestamp)
    return (*place, recorded_at, record.key, record.value, headers, reason, _storable(detail), *decided)


def _parked(row: Mapping[str, Any]) -> Parked:
    place = Place(row["topic"], row["partition"], row["log_offset"])
    record = KeptRecord(
        place.partition,
        place.offset,
        milliseconds_of(row["recorded_at"]),
        row["key"],
        row["value"],
        [(name, None if value is None else base64.b64decode(value)) for name, value in row["headers"]],
    )
    decided = row["waits_for"], row["outcome"], row["decided_by"], row["decided_at"], row["mark"], row["is_blank"]
    return Parked(place, record, row["reason"], row["detail"], *decided)


def _storable(text: str) -> str:
    """`text` without NUL, which Postgres holds in no text."""
    return text.replace("\0", "\\0")
