"""`faust -A agents what-if`: a projection of views folded by another rule, beside the version that answers."""

from pathlib import Path
from typing import Any

import click
from faust.cli import AppCommand, argument, option
from pydantic import ValidationError

from agents.commands.operating import operating
from agents.commands.rebuild import build, rate, workers
from agents.commands.tables import show
from agents.registry import Registry
from agents.stores import Stores
from agents.supposing import Moved, films_of, moved
from agents.worker import app
from projections.all import PROJECTIONS
from projections.queries.catalogue import Catalogue
from projections.queries.versions import Version, Versions
from projections.rule import Rule
from schemas.streams import streams

COUNTING = [name for name, projection in PROJECTIONS.items() if projection.counts_once]


@app.command(
    argument("name", type=click.Choice(COUNTING)),
    option(
        "--watched-at-least",
        type=click.FloatRange(0),
        help="Seconds: a view that says less, or does not say, is left out.",
    ),
    option(
        "--without-viewers",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file with pseudonyms, one a line: their views are left out.",
    ),
    option("--films", type=click.IntRange(1, 1_000), default=10, show_default=True, help="How many are shown."),
    rate,
    workers,
)
async def what_if(
    self: AppCommand,
    name: str,
    watched_at_least: float | None,
    without_viewers: Path | None,
    films: int,
    rate: int | None,
    workers: int,
) -> None:
    """Fold a projection with a changed rule into a version of its own, and tell what would move; `switch` lets it answer."""
    rule = rule_of(watched_at_least, without_viewers)
    async with operating() as stores:
        registry = Registry(stores.pool)
        version = await registry.begin(name, streams().projections[name], rule.model_dump(mode="json"))
        if await build(stores, version, rate, workers):
            await tell(stores, await registry.versions(), version, rule, films)


def rule_of(watched_at_least: float | None, without_viewers: Path | None) -> Rule:
    """Raises SystemExit with what is wrong with it."""
    viewers: list[str] = [] if without_viewers is None else without_viewers.read_text().split()
    conditions: dict[str, Any] = {"watched_at_least_seconds": watched_at_least, "without_viewers": viewers}
    try:
        return Rule.model_validate(conditions)
    except ValidationError as wrong:
        raise SystemExit(f"Error: {'; '.join(error['msg'] for error in wrong.errors())}") from None


async def tell(stores: Stores, versions: Versions, version: Version, rule: Rule, films: int) -> None:
    active = versions.active(version.projection)
    now, then = await films_of(stores, active), await films_of(stores, version)
    first = moved(now, then, films)
    known = await Catalogue(stores.pool, versions).find_many(film.video_id for film in first)
    show(
        ("rank now", "rank then", "climbs", "film", "title", "views now", "views then", "difference"),
        (
            (
                film.rank_now or "-",
                film.rank_then or "-",
                _climbs(film),
                film.video_id,
                known[film.video_id].title if film.video_id in known else "",
                film.views_now,
                film.views_then,
                film.views_then - film.views_now,
            )
            for film in first
        ),
    )
    counted_now, counted_then = sum(now.values()), sum(then.values())
    share = f" ({(counted_then - counted_now) / counted_now:+.1%})" if counted_now else ""
    click.echo(
        f"{rule}: {counted_then:,} views of {len(then):,} films count instead of {counted_now:,} of {len(now):,}{share}. "
        f"`faust -A agents switch {active.projection} --version {version.number}` lets that answer, "
        f"`retire {active.projection} --version {version.number}` drops it"
    )


def _climbs(film: Moved) -> str:
    if film.climbs is None:
        return "new" if film.rank_now is None else "gone"
    return f"{'+' if film.climbs > 0 else ''}{film.climbs}" if film.climbs else ""
