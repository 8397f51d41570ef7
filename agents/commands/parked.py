"""`faust -A agents parked`: records that could not be folded."""

import click
from faust.cli import AppCommand, option

from agents.commands.tables import show
from agents.parking import list_parked
from agents.worker import app
from compose.connections import open_postgres
from compose.settings import settings


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
