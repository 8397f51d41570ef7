"""The forgotten of a table in Postgres: who they are is kept beside it, in `{table}_forgotten_v{version}`, a set that only grows.

Whoever writes rows looks into the set before, and keeps a lock on it to the end of the transaction; whoever forgets waits until nobody has
such a lock. So a row is either there when its viewer is forgotten, or its writer finds them in the set.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from projections.sinks.parked_forgetting import forget_parked
from projections.sinks.rows import Statement

Rows = Sequence[tuple[Any, ...]]


class Forgotten:
    """The set of one table. `column` is the one whose values are forgotten."""

    def __init__(self, table: str, of_table: str, column: str) -> None:
        self._table = table
        self._of_table = of_table
        self.column = column

    async def without(self, connection: Any, statement: Statement, *, seconds: float) -> Statement:
        """`statement` without the rows of the forgotten, or with their columns blank."""
        shape, rows = statement
        names = (*shape.key_columns, *shape.columns)
        if self.column not in names:
            return statement
        at = names.index(self.column)
        # What names nobody needs no question.
        asked = {row[at] for row in rows} - {None}
        if not asked:
            return statement
        # The table's lock comes before the snapshot, so that whoever was waited for is seen.
        found = await connection.fetch(
            f'select "{self.column}", blank from {self._table} where "{self.column}" = any($1::text[])',
            list(asked),
            timeout=seconds,
        )
        return Statement(shape, list(_living(names, rows, at, dict(map(tuple, found))))) if found else statement

    async def add(self, connection: Any, statement: Statement, *, seconds: float) -> None:
        """Forget each key of `statement`: nobody else writes to the table meanwhile."""
        shape, rows = statement
        forgotten = [key for (key,) in rows]
        await connection.execute(f"lock table {self._table} in access exclusive mode", timeout=seconds)
        await connection.execute(
            f'insert into {self._table} ("{self.column}", blank) select unnest($1::text[]), $2 on conflict do nothing',
            forgotten,
            list(shape.columns),
            timeout=seconds,
        )
        await forget_parked(connection, forgotten, seconds=seconds)
        blank = ", ".join(f'"{name}" = null' for name in shape.columns)
        what = f"update {self._of_table} set {blank}" if blank else f"delete from {self._of_table}"
        await connection.execute(f'{what} where "{self.column}" = any($1::text[])', forgotten, timeout=seconds)


def _living(
    names: Sequence[str], rows: Rows, at: int, forgotten: Mapping[str, Sequence[str]]
) -> Iterable[tuple[Any, ...]]:
    for row in rows:
        blank = forgotten.get(row[at])
        if blank is None:
            yield row
        elif blank:
            yield tuple(None if name in blank else value for name, value in zip(names, row, strict=True))
