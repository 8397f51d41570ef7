"""`faust -A agents audit`: a board, or the aggregates, against the log."""

from typing import Any

import click
from faust.cli import AppCommand, argument, option

from agents.auditing import Audit, Auditing
from agents.commands.operating import operating
from agents.commands.tables import show
from agents.log_reader import log_of
from agents.replaying import Replay
from agents.worker import app
from compose.settings import settings
from projections.queries.versions import Versions, read_versions
from projections.sinks.redis_windows import NAMES
from schemas.streams import streams

SHOWN = 20  # of the differences


@app.command(
    argument("what", type=click.Choice(["leaderboard", "statistics", "all"]), default="all"),
    option("--timeframe", type=click.Choice(NAMES), help="One window; without it all of them."),
)
async def audit(self: AppCommand, what: str, timeframe: Any) -> None:
    """Fold the log anew, up to where the board and the aggregates are, and prove them equal; 1 when they are not."""
    async with operating() as stores:
        versions = Versions(await read_versions(stores.pool))
        auditing = Auditing(Replay(log_of(settings()), streams()), settings().prefix, stores.pool, stores.redis)
        audits = []
        if what in ("leaderboard", "all"):
            audits.append(
                await auditing.leaderboard(versions.active("leaderboard"), [timeframe] if timeframe else NAMES)
            )
        if what in ("statistics", "all"):
            audits.append(await auditing.statistics(versions.active("statistics"), timeframe or "all_time"))
    for found in audits:
        _tell(found)
    if any(found.differences for found in audits):
        raise SystemExit(1)


def _tell(found: Audit) -> None:
    at = ", ".join(f"{place.topic}/{place.partition} at {place.offset:,}" for place in found.places)
    verdict = f"{len(found.differences):,} differences" if found.differences else "equal"
    click.echo(f"{found.version} {verdict}: {found.films:,} films, {found.views:,} views, positions {at}")
    if found.differences:
        show(("table", "key", "held", "in the log"), found.differences[:SHOWN])
