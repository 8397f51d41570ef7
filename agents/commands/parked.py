"""`faust -A agents parked`: records that could not be folded, and what is decided about them."""

from collections.abc import Iterable

import click
from faust.cli import AppCommand, argument, option

from agents.commands.tables import show as show_table
from agents.parked import Found, Wanted, count_parked, find_parked, readable
from agents.worker import app
from compose.connections import open_postgres
from compose.settings import settings
from schemas.log import Place


class RecordId(click.ParamType):
    """`topic:partition:offset`, as the list prints it."""

    name = "record"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> Place:
        try:
            return Place.of(str(value))
        except ValueError:
            self.fail(f"{value!r} names no record; write topic:partition:offset, such as views:3:41207", param, context)


@app.command(
    argument("word", type=click.Choice(["list", "show"]), default="list"),
    argument("records", nargs=-1, type=RecordId()),
    option("--projection", help="Only what this projection has parked."),
    option("--reason", help="Only what was parked for this reason, such as unknown-type."),
    option("--decided", is_flag=True, help="List decided ones too."),
    option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="List so many."),
)
async def parked(
    self: AppCommand,
    word: str,
    records: tuple[Place, ...],
    projection: str | None,
    reason: str | None,
    decided: bool,
    limit: int,
) -> None:
    """Records that could not be folded: list them, or show some whole (`show views:3:41207`)."""
    if word == "show" and not records:
        raise click.UsageError("name the records, such as `parked show views:3:41207`")
    wanted = Wanted(projection, reason, records, decided=decided or word == "show")
    async with open_postgres(settings(), connections=1) as pool:
        found = await find_parked(pool, wanted, limit)
        count = await count_parked(pool, wanted)
    if word == "show":
        show_whole(found)
    else:
        show_list(found, count)


def show_list(found: Iterable[Found], count: int) -> None:
    rows = [
        (item.projection, item.place.id, item.outcome or item.reason, item.detail, f"{item.parked_at:%F %T}")
        for item in found
    ]
    show_table(("projection", "record", "reason", "what is wrong", "parked at"), rows)
    if len(rows) < count:
        click.echo(f"{len(rows):,} of {count:,}; --limit shows more")


def show_whole(found: Iterable[Found]) -> None:
    """A record once, then each projection that has parked it."""
    shown: Place | None = None
    for item in found:
        if item.place != shown:
            shown = item.place
            click.echo(f"\n{item.place.id}, recorded {item.recorded_at:%F %T.%f} UTC")
            for name, value in item.headers:
                click.echo(f"  {name}: {readable(value)}")
            click.echo(f"  key: {readable(item.key)}\n  value: {readable(item.value)}")
        became = f"{item.outcome} by decisions:0:{item.decided_by}" if item.outcome else "undecided"
        click.echo(f"  {item.projection} v{item.version}: {item.reason}, {became}: {item.detail}")
    if shown is None:
        click.echo("nothing of this is parked")
