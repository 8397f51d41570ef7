"""`faust -A agents lag`: how far each projection is behind the log."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import click
import orjson
from faust.cli import AppCommand, option

from agents.commands.tables import show
from agents.lag import Lag, lags
from agents.worker import app
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.settings import settings
from schemas.streams import streams

WORST_FIRST = ("stuck", "behind", "healthy")


@app.command(option("--json", "as_json", is_flag=True, help="Every partition, as one JSON array for a machine."))
async def lag(self: AppCommand, as_json: bool) -> None:
    """How far each projection is behind the log, in events and in seconds, and why one stands still."""
    async with (
        open_postgres(settings()) as pool,
        open_redis(settings()) as redis,
        open_elasticsearch(settings()) as client,
    ):
        found = await lags(settings(), streams(), pool, redis, client)
    if as_json:
        click.echo(orjson.dumps([item.told() for item in found]).decode())
        return
    by_version: dict[str, list[Lag]] = defaultdict(list)
    for item in found:
        by_version[f"{item.projection}_v{item.version}"].append(item)
    show(
        ("projection", "state", "events behind", "seconds behind", "partitions behind"),
        (
            (name, worst(items), sum(item.lag_events for item in items), seconds(items), partitions(items))
            for name, items in by_version.items()
        ),
    )
    for sentence in dict.fromkeys(item.why for item in found if item.why):
        click.echo(sentence)


def worst(items: Iterable[Lag]) -> str:
    return min((item.state for item in items), key=WORST_FIRST.index)


def seconds(items: Iterable[Lag]) -> str:
    known = [item.lag_seconds for item in items if item.lag_seconds is not None]
    return f"{max(known):,.1f}" if known else "unknown"


def partitions(items: Sequence[Lag]) -> str:
    behind = [f"{item.topic}/{item.partition}" for item in items if item.state != "healthy"]
    return ", ".join(behind) or "–"
