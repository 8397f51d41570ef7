"""What is parked, for whoever looks and decides."""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from agents.parking import KeptRecord
from projections.sinks.postgres import reaching_postgres
from schemas.events import ViewRetried
from schemas.log import Place, milliseconds_of

SELECT = """
select projection, version, topic, partition, log_offset, recorded_at, key, value, headers, reason, detail, waits_for, outcome,
    decided_by, parked_at, is_blank, exists (
        select from parking_steps s where s.outcome is not null
        and (s.projection, s.version, s.topic, s.partition, s.log_offset)
            = (parked.projection, parked.version, parked.topic, parked.partition, parked.log_offset)
    ) as is_taken
from parked
"""
TYPE = "ce_type"  # the header
SHOWN_BYTES = 4_000  # of a key or a value


class Wanted(NamedTuple):
    """Which parked records: those of a place, a projection, a topic, a reason, or all. Decided ones only if they are asked for."""

    projection: str | None = None
    topic: str | None = None
    reason: str | None = None
    places: Sequence[Place] = ()
    decided: bool = False


class Found(NamedTuple):
    """A parked record as one version of a projection has it; `is_taken` while a decision about it is being carried out, `is_blank` where it
    has lost the name of a viewer who was forgotten."""

    projection: str
    version: int
    place: Place
    recorded_at: datetime
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    reason: str
    detail: str
    outcome: str | None
    decided_by: int | None
    parked_at: datetime
    is_taken: bool
    is_blank: bool

    @property
    def record(self) -> KeptRecord:
        """As it was read from the log, but for what is blank."""
        at = milliseconds_of(self.recorded_at)
        return KeptRecord(self.place.partition, self.place.offset, at, self.key, self.value, self.headers)

    @property
    def is_mark(self) -> bool:
        """Whether it is itself the retry of a view."""
        return dict(self.headers).get(TYPE) == ViewRetried.type.encode()


MARKS = "select projection, version, value from parked where topic = $1 and headers @> $2"


async def retried_in_vain(pool: Any) -> Mapping[str, Set[int]]:
    """By the full name of each version the decisions that came to nothing where they are marked: the mark took no id, or was parked itself.

    Raises StoreUnavailable.
    """
    found: dict[str, set[int]] = defaultdict(set)
    with reaching_postgres():
        rows = await pool.fetch(
            MARKS, ViewRetried.topic, [[TYPE, base64.b64encode(ViewRetried.type.encode()).decode()]]
        )
    for projection, version, value in rows:
        with suppress(ValidationError):
            found[f"{projection}_v{version}"].add(ViewRetried.model_validate_json(value or b"").decision)
    return found


async def find_parked(pool: Any, wanted: Wanted, limit: int | None = None) -> list[Found]:
    """What is parked of `wanted`, in the order of the log. Raises StoreUnavailable."""
    conditions, values = _conditions(wanted)
    sql = f"{SELECT} where {conditions} order by topic, partition, log_offset, projection, version"
    with reaching_postgres():
        rows = await pool.fetch(sql if limit is None else f"{sql} limit {limit}", *values)
    return [_found(row) for row in rows]


async def count_parked(pool: Any, wanted: Wanted) -> int:
    """How many there are. Raises StoreUnavailable."""
    conditions, values = _conditions(wanted)
    with reaching_postgres():
        found: int = await pool.fetchval(f"select count(*) from parked where {conditions}", *values)
    return found


def _conditions(wanted: Wanted) -> tuple[str, list[Any]]:
    conditions, values = ["true" if wanted.decided else "outcome is null"], list[Any]()
    for column, value in (("projection", wanted.projection), ("topic", wanted.topic), ("reason", wanted.reason)):
        if value is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    if wanted.places:
        values += map(list, zip(*wanted.places, strict=True))
        first = len(values) - 2
        arrays = f"${first}::text[], ${first + 1}::int[], ${first + 2}::bigint[]"
        conditions.append(f"(topic, partition, log_offset) in (select * from unnest({arrays}))")
    return " and ".join(conditions), values


def _found(row: Mapping[str, Any]) -> Found:
    return Found(
        row["projection"],
        row["version"],
        Place(row["topic"], row["partition"], row["log_offset"]),
        row["recorded_at"],
        row["key"],
        row["value"],
        [(name, None if value is None else base64.b64decode(value)) for name, value in row["headers"]],
        row["reason"],
        row["detail"],
        row["outcome"],
        row["decided_by"],
        row["parked_at"],
        row["is_taken"],
        row["is_blank"],
    )


def readable(data: bytes | None) -> str:
    """Bytes for a person: JSON in lines, other text as it is, anything else in hex; what is long is cut, and says so."""
    if data is None:
        return "null"
    text = _as_text(data)
    return text if len(text) <= SHOWN_BYTES else f"{text[:SHOWN_BYTES]}… ({len(data):,} bytes)"


def _as_text(data: bytes) -> str:
    try:
        return orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        pass
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text else f"hex {data[:SHOWN_BYTES].hex(' ')}"
