"""A row of a projection's state, in whatever store it lies."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """Rows of one table have keys of one shape, so that they can be ordered by table and key."""

    table: str
    key: tuple[Any, ...]
    values: Mapping[str, Any]
