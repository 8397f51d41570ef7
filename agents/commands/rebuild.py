"""`faust -A agents rebuild|pause|resume`: a projection folded anew, beside the version that answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from faust.cli import AppCommand, option
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from agents.commands.operating import name, name_or_all, names_of, operating
from agents.rebuilding import WORKERS, Progress, Rebuilding
from agents.registry import Registry
from agents.stores import Stores
from agents.worker import app
from compose.settings import settings
from projections.queries.versions import Version
from schemas.streams import streams

rate = option(
    "--rate", type=click.IntRange(1), help="The most events a second; as many as can be where it is not given."
)
workers = option(
    "--workers",
    type=click.IntRange(1, 64),
    default=WORKERS,
    show_default=True,
    help="Processes, each with partitions of its own; by default one for two processors.",
)


@app.command(name_or_all, rate, workers)
async def rebuild(self: AppCommand, name: str, rate: int | None, workers: int) -> None:
    """Fold a projection anew from the start of the log, as its next version; what answers goes on answering."""
    async with operating() as stores:
        for each in names_of(name):
            version = await Registry(stores.pool).begin(each, streams().projections[each])
            if not await build(stores, version, rate, workers):
                return
            _tell_ready(version)


@app.command(name, rate, workers)
async def resume(self: AppCommand, name: str, rate: int | None, workers: int) -> None:
    """Go on with a version that was paused, or whose rebuild was killed, from its checkpoints."""
    async with operating() as stores:
        version = await Registry(stores.pool).building(name)
        if await build(stores, version, rate, workers):
            _tell_ready(version)


@app.command(name)
async def pause(self: AppCommand, name: str) -> None:
    """End a rebuild in order, wherever it runs; `resume` goes on."""
    async with operating() as stores:
        registry = Registry(stores.pool)
        version = await registry.building(name)
        await registry.pause(version, True)
    click.echo(f"{name} version {version.number} is paused: `faust -A agents resume {name}` goes on")


async def build(stores: Stores, version: Version, rate: int | None, workers: int) -> bool:
    """With a bar on the screen; False, in words, when it was paused."""
    rebuilding = Rebuilding(settings(), stores, version, workers=workers, rate=rate or 0)
    with bar(f"{version.projection} version {version.number}") as show:
        is_ready = await rebuilding.run(show)
    if not is_ready:
        name = version.projection
        click.echo(f"{name} version {version.number} is paused: `faust -A agents resume {name}` goes on")
    return is_ready


def _tell_ready(version: Version) -> None:
    name = version.projection
    click.echo(
        f"{name} version {version.number} is ready: `faust -A agents verify {name}` compares it, `switch {name}` lets it answer"
    )


@contextmanager
def bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """Yields what shows progress: percent, events, events a second lately, time left; in the end the time that it took."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[count]} events, {task.fields[pace]} a second"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bar(*columns, console=console) as shown:
        task = shown.add_task(title, total=None, count="-", pace="-")

        def show(progress: Progress) -> None:
            shown.update(
                task,
                total=progress.events,
                completed=progress.folded,
                count=f"{progress.folded:,} of {progress.events:,}",
                pace=f"{progress.events_per_second:,.0f}",
            )

        yield show
