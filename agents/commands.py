"""What an operator may ask: words in, one call, a table out."""

from collections.abc import Iterable
from typing import Any

import click
import orjson
from faust.cli import AppCommand, option
from rich.console import Console
from rich.table import Table

from agents.lag import Lag, lags
from agents.parking import list_parked
from agents.worker import app
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.settings import settings
from schemas.streams import streams

__all__ = ["app"]


@app.command(option("--json", "as_json", is_flag=True, help="One JSON array, for a machine."))
async def lag(self: AppCommand, as_json: bool) -> None:
    """How far each projection is behind the log, in events."""
    async with (
        open_postgres(settings()) as pool,
        open_redis(settings()) as redis,
        open_elasticsearch(settings()) as client,
    ):
        found = await lags(settings(), streams(), pool, redis, client)
    if as_json:
        click.echo(orjson.dumps([{**item._asdict(), "lag_events": item.lag_events} for item in found]).decode())
        return
    show(
        ("projection", "partition", "next offset", "end", "lag"),
        (
            (item.projection, f"{item.topic}/{item.partition}", item.next_offset, item.end_offset, item.lag_events)
            for item in behind_first(found)
        ),
    )


@app.command(
    option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many, the newest first.")
)
async def parked(self: AppCommand, limit: int) -> None:
    """Records that could not be folded: where they lie, and why."""
    async with open_postgres(settings()) as pool:
        found = await list_parked(pool, limit)
    show(
        ("projection", "place", "reason", "what is wrong", "parked at"),
        ((item.projection, item.place, item.reason, item.detail, f"{item.parked_at:%F %T}") for item in found),
    )


def behind_first(found: Iterable[Lag]) -> list[Lag]:
    return sorted(found, key=lambda item: (-item.lag_events, item.projection, item.topic, item.partition))


def show(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console().print(table)
