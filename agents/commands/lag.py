"""`faust -A agents lag`: how far each projection is behind the log."""

from collections.abc import Iterable

import click
import orjson
from faust.cli import AppCommand, option

from agents.commands.tables import show
from agents.lag import Lag, lags
from agents.worker import app
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.settings import settings
from schemas.streams import streams


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


def behind_first(found: Iterable[Lag]) -> list[Lag]:
    return sorted(found, key=lambda item: (-item.lag_events, item.projection, item.topic, item.partition))
