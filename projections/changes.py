"""Effects as data: what a fold wants written. A sink turns many of them into few statements.

A table is named without its version; the sink adds it. Keys and values are plain: text, numbers, booleans, moments in UTC, lists and
dicts that JSON can hold, or None.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Values = Mapping[str, Any]


class Increment(NamedTuple):
    """Add `by` to the counter `column` of the row at `key`, which starts at 0."""

    table: str
    key: Values
    by: int = 1
    column: str = "views"


class Tally(NamedTuple):
    """Add to the counter `column` of many rows: by each key, a value for each of `key_columns`, how much.

    As many increments, said at once: what a batch of views adds up to comes by the thousand.
    """

    table: str
    key_columns: tuple[str, ...]
    counts: Mapping[tuple[Any, ...], int]
    column: str = "views"


class Upsert(NamedTuple):
    """Write `values` into the row at `key`, leaving its other columns alone; the row is made when missing.

    With `newest_by`, a column of `values`, only if the row has none yet or one that is not greater: whatever the order of arrival, the
    greatest wins, and of equals the later in the log. `greatest`, another column of `values`, keeps the greatest for itself, whether the
    other columns are the newest or not.
    """

    table: str
    key: Values
    values: Values
    newest_by: str | None = None
    greatest: str | None = None


class Upserts(NamedTuple):
    """Write many rows that each keep the newest: in each, values for `key_columns` and then for `columns`.

    As many upserts, said at once. Whose `greatest` is None says nothing of it.
    """

    table: str
    key_columns: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    newest_by: str
    greatest: str | None = None


class Append(NamedTuple):
    """Write rows that nobody has written before: in each, values for `key_columns` and then for `columns`.

    As many upserts, said at once: a log's records, each with a key of its own, come by the thousand.
    """

    table: str
    key_columns: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


class Remove(NamedTuple):
    """Drop the row at `key`; a key of only some of the table's key columns drops every row that matches."""

    table: str
    key: Values


class Forget(NamedTuple):
    """Nothing stays of the rows of `table` that hold `key`, one column and its value: they drop, or with `blank` lose those columns.

    It is for good, and for rows that come later too: a sink keeps what is forgotten in a set that only grows. Events of different topics
    are folded in any order, and the same must come of it.
    """

    table: str
    key: Values
    blank: tuple[str, ...] = ()


Single = Increment | Upsert | Remove | Forget
Change = Single | Tally | Upserts | Append


def singly(changes: Iterable[Change]) -> Iterator[Single]:
    """The same, row by row."""
    for change in changes:
        if isinstance(change, Tally):
            for key, by in change.counts.items():
                yield Increment(change.table, dict(zip(change.key_columns, key, strict=True)), by, change.column)
        elif isinstance(change, Upserts | Append):
            parted = len(change.key_columns)
            newest_by, greatest = (change.newest_by, change.greatest) if isinstance(change, Upserts) else (None, None)
            for row in change.rows:
                place = dict(zip(change.key_columns, row[:parted], strict=True))
                values = dict(zip(change.columns, row[parted:], strict=True))
                if greatest is not None and values[greatest] is None:
                    del values[greatest]
                yield Upsert(change.table, place, values, newest_by, greatest if greatest in values else None)
        else:
            yield change
