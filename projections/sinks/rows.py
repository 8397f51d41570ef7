"""Many changes to few statements: what a batch means for each row, in the order of the log."""

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from projections.changes import Append, Change, Forget, Increment, Remove, Tally, Upsert, Upserts

Key = tuple[Any, ...]
Group = dict[Key, tuple[Any, ...]] | Sequence[tuple[Any, ...]]
"""The values of rows by their keys while others may come to them, or whole rows."""


class Shape(NamedTuple):
    """What changes that can share a statement have in common."""

    kind: type[Change]
    table: str
    key_columns: tuple[str, ...]
    columns: tuple[str, ...]
    newest_by: str | None = None
    greatest: str | None = None


class Statement(NamedTuple):
    """One shape with its rows: in each, values for its key columns and then for its other columns. Sorted by key, so that two workers
    lock rows in one order."""

    shape: Shape
    rows: Sequence[tuple[Any, ...]]


def shape_of(change: Change) -> Shape:
    if isinstance(change, Append):
        return Shape(Append, change.table, change.key_columns, change.columns)
    if isinstance(change, Tally):
        return Shape(Increment, change.table, change.key_columns, (change.column,))
    if isinstance(change, Upserts):
        return Shape(Upsert, change.table, change.key_columns, change.columns, change.newest_by, change.greatest)
    if isinstance(change, Increment):
        return Shape(Increment, change.table, tuple(change.key), (change.column,))
    if isinstance(change, Upsert):
        return Shape(Upsert, change.table, tuple(change.key), tuple(change.values), change.newest_by, change.greatest)
    if isinstance(change, Forget):
        return Shape(Forget, change.table, tuple(change.key), change.blank, None)
    return Shape(Remove, change.table, tuple(change.key), ())


def statements(changes: Iterable[Change]) -> Iterator[Statement]:
    """The statements that, one after the other, do what the changes do one by one.

    Changes of one shape share a statement, unless another change to the same row lies between them; what comes
    before a Remove, a Forget or a change of many rows is parted from what comes after.
    """
    groups: list[tuple[Shape, Group]] = []
    latest: dict[tuple[str, Key], int] = {}
    by_shape: dict[Shape, int] = {}
    floor = 0
    for change in changes:
        shape = shape_of(change)
        if isinstance(change, Append):
            # They are nobody else's, in whatever order.
            groups.append((shape, change.rows))
            floor = len(groups)
            continue
        if isinstance(change, Tally):
            groups.append((shape, sorted((*key, by) for key, by in change.counts.items())))
            floor = len(groups)
            continue
        if isinstance(change, Upserts):
            groups.append((shape, _newest(change)))
            floor = len(groups)
            continue
        key = tuple(change.key.values())
        at = by_shape.get(shape, -1)
        if at < max(floor, latest.get((change.table, key), 0)):
            at = by_shape[shape] = len(groups)
            groups.append((shape, {}))
        latest[change.table, key] = at
        if isinstance(change, Remove | Forget):
            floor = len(groups)
        rows = groups[at][1]
        assert isinstance(rows, dict)
        _reduce(rows, key, change)
    for shape, rows in groups:
        if isinstance(rows, dict):
            rows = [(*key, *values) for key, values in sorted(rows.items(), key=itemgetter(0))]
        yield Statement(shape, rows)


def _newest(change: Upserts) -> Sequence[tuple[Any, ...]]:
    """A row a key, sorted by them."""
    parted = len(change.key_columns)
    register = parted + change.columns.index(change.newest_by)
    greatest = None if change.greatest is None else parted + change.columns.index(change.greatest)
    found: dict[Key, tuple[Any, ...]] = {}
    for row in change.rows:
        key = row[:parted]
        kept = found.get(key)
        found[key] = row if kept is None else _newer(kept, row, register, greatest)
    return [found[key] for key in sorted(found)]


def _newer(kept: tuple[Any, ...], row: tuple[Any, ...], register: int, greatest: int | None) -> tuple[Any, ...]:
    """Of two rows of one key, the later one second, what stays."""
    newest = row if kept[register] <= row[register] else kept
    if greatest is None:
        return newest
    known = [moment for moment in (kept[greatest], row[greatest]) if moment is not None]
    return (*newest[:greatest], max(known, default=None), *newest[greatest + 1 :])


def _reduce(rows: dict[Key, tuple[Any, ...]], key: Key, change: Increment | Upsert | Remove | Forget) -> None:
    if isinstance(change, Increment):
        rows[key] = (rows.get(key, (0,))[0] + change.by,)
    elif isinstance(change, Remove | Forget):
        rows[key] = ()
    elif key not in rows or change.newest_by is None:
        rows[key] = tuple(change.values.values())
    else:
        columns = tuple(change.values)
        greatest = None if change.greatest is None else columns.index(change.greatest)
        rows[key] = _newer(rows[key], tuple(change.values.values()), columns.index(change.newest_by), greatest)
