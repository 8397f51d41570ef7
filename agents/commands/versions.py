"""`faust -A agents versions|switch|rollback|retire`: which version answers."""

import click
from faust.cli import AppCommand

from agents.commands.operating import EVERY, name, name_or_all, names_of, operating, version
from agents.commands.tables import show
from agents.registry import Registry, Row
from agents.switching import Switched, Switching
from agents.worker import app
from projections.rule import Rule
from schemas.streams import streams


@app.command()
async def versions(self: AppCommand) -> None:
    """Every version of every projection: its fold, its state, its rule, and how far it is."""
    async with operating() as stores:
        registry, switching = Registry(stores.pool), Switching(stores)
        rows = [row for name in streams().projections for row in await registry.rows(name)]
        folded = {row.version.full_name: await _folded(switching, row) for row in rows}
    show(
        ("projection", "version", "fold", "state", "rule", "events folded", "since"),
        (
            (
                row.version.projection,
                row.version.number,
                row.version.fold,
                f"{row.version.state} (paused)" if row.is_paused else row.version.state,
                "" if row.version.rule is None else Rule.model_validate(row.version.rule),
                folded[row.version.full_name],
                f"{row.changed_at:%F %T}",
            )
            for row in rows
        ),
    )


async def _folded(switching: Switching, row: Row) -> int | str:
    return "" if row.version.state == "retired" else sum((await switching.positions(row.version)).values())


@app.command(name_or_all, version)
async def switch(self: AppCommand, name: str, number: int | None) -> None:
    """Let the newest version that is ready answer, in one step; the one before is kept up for `rollback`.

    One of another rule (`what-if`) has to be named.
    """
    async with operating() as stores:
        for each in names_of(name):
            _tell(await Switching(stores).switch(each, number))


@app.command(name)
async def rollback(self: AppCommand, name: str) -> None:
    """Let the version answer that did before."""
    async with operating() as stores:
        _tell(await Switching(stores).rollback(name))


def _tell(switched: Switched) -> None:
    projection, before, now = switched
    click.echo(
        f"{projection}: version {now} answers, version {before} did; "
        f"`faust -A agents rollback {projection}` goes back, `retire {projection} --version {before}` drops it"
    )


@app.command(name_or_all, version)
async def retire(self: AppCommand, name: str, number: int | None) -> None:
    """Drop a version that does not answer, once nobody can be reading it; one that is being built is given up.

    Of all projections, every version that is ready and does not answer.
    """
    async with operating() as stores:
        numbers = [(name, number)] if name != EVERY else await _ready(Registry(stores.pool))
        for each, its_number in numbers:
            version = await Switching(stores).retire(each, its_number)
            click.echo(f"{each} version {version.number} is dropped")
        if not numbers:
            click.echo("no projection has a ready version but the one that answers")


async def _ready(registry: Registry) -> list[tuple[str, int | None]]:
    versions = await registry.versions()
    return [(each, v.number) for each in streams().projections for v in versions.known(each) if v.state == "ready"]
