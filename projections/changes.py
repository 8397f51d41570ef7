"""Effects as data: what a fold wants written. A sink turns many of them into few statements.

A table is named without its version; the sink adds it. Keys and values are plain: text, numbers, booleans, moments in UTC, lists and
dicts that JSON can hold, or None.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Values = Mapping[str, Any]


class Increment(NamedTuple):
    """Add `by` to the counter `column` of the row at `key`, which starts at 0."""

    table: str
    key: Values
    by: int = 1
    column: str = "views"


class Upsert(NamedTuple):
    """Write `values` into the row at `key`, leaving its other columns alone; the row is made when missing.

    With `newest_by`, a column of `values`, only if the row has none yet or one that is not greater: whatever the order of arrival, the
    greatest wins, and of equals the later in the log.
    """

    table: str
    key: Values
    values: Values
    newest_by: str | None = None


class Remove(NamedTuple):
    """Drop the row at `key`; a key of only some of the table's key columns drops every row that matches."""

    table: str
    key: Values


Change = Increment | Upsert | Remove
