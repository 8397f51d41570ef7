"""A table on the screen."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table


def show(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Whole numbers get their thousands parted."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console().print(table)
