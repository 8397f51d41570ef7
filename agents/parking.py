"""Poison, kept with its bytes, its place and the reason, before the checkpoint moves past it."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from projections.projection import Projection
from projections.sinks.postgres import reaching_postgres
from schemas.envelope import Record
from schemas.log import Place

PARK = """
insert into parked (projection, version, topic, partition, log_offset, recorded_at, key, value, headers, reason, detail)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing
"""


class Parked(NamedTuple):
    """A record that cannot be folded. `reason` is a fixed word, `detail` a sentence."""

    place: Place
    record: Record
    reason: str
    detail: str


class Parking:
    """Where one projection's poison is kept, in Postgres. Raises StoreUnavailable when it is down."""

    def __init__(self, pool: Any, projection: Projection) -> None:
        self._pool = pool
        self._projection = projection

    async def park(self, parked: Sequence[Parked]) -> None:
        """Keep each of `parked`; by its place, so that parking it again changes nothing."""
        name, version = self._projection.name, self._projection.version
        rows = [
            (
                name,
                version,
                *place,
                datetime.fromtimestamp(record.timestamp / 1_000, UTC),
                record.key,
                record.value,
                [
                    [_storable(header), None if value is None else base64.b64encode(value).decode()]
                    for header, value in record.headers
                ],
                reason,
                _storable(detail),
            )
            for place, record, reason, detail in parked
        ]
        if rows:
            with reaching_postgres():
                await self._pool.executemany(PARK, rows)


def _storable(text: str) -> str:
    """`text` without NUL, which Postgres holds in no text."""
    return text.replace("\0", "\\0")
