"""`python -m compose.local up`, `down`, `status`, `logs`, `clean`: what the Makefile calls."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from compose.local import client
from compose.local.requirements import check_disk, check_fetched
from compose.local.samples import load_samples
from compose.local.stack import PROGRAMS, ROOT, SERVERS, CannotStart, Stack
from compose.local.status import addresses, lag_table, process_table
from compose.local.supervisor import supervise

console = Console(highlight=False)


@click.group()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=None, help="where the stack keeps everything (.stack)"
)
@click.pass_context
def main(context: click.Context, folder: Path | None) -> None:
    """The system as local processes."""
    chosen = folder or Path(os.environ.get("STACK_FOLDER", ROOT / ".stack"))
    context.obj = Stack(chosen.resolve())


@main.command()
@click.argument("names", nargs=-1, type=click.Choice((*SERVERS, *PROGRAMS)))
@click.option("--servers-only", is_flag=True, help="the five servers, nothing of ours")
@click.pass_obj
def up(stack: Stack, names: tuple[str, ...], servers_only: bool) -> None:
    """Start what is not up yet; NAMES: only these."""
    wanted = names or (SERVERS if servers_only else (*SERVERS, *PROGRAMS))
    check_disk(stack)
    check_fetched(stack)
    stack.lay_out()
    client.order(stack, {"do": "up", "names": list(wanted)}, console)
    if {*PROGRAMS} <= {*wanted}:
        samples = asyncio.run(load_samples(stack, console))
        console.print(f"\n{addresses(stack, samples)}", soft_wrap=True)


@main.command()
@click.argument("names", nargs=-1, type=click.Choice((*SERVERS, *PROGRAMS)))
@click.pass_obj
def down(stack: Stack, names: tuple[str, ...]) -> None:
    """Stop everything; NAMES: only these. The data stay."""
    client.stop(stack, names, console)


@main.command()
@click.pass_obj
def status(stack: Stack) -> None:
    """What runs, and how far each projection is behind."""
    kept = client.ask_status(stack)
    console.print(process_table(stack, kept))
    if "worker" in kept:
        console.print()
        console.print(lag_table(stack))


@main.command()
@click.argument("names", nargs=-1)
@click.pass_obj
def logs(stack: Stack, names: tuple[str, ...]) -> None:
    """Follow the logs of NAMES, or all of them."""
    files = [stack.log(name) for name in names] or sorted((stack.folder / "log").glob("*.log"))
    if missing := [file for file in files if not file.exists()]:
        raise CannotStart(f"there is no {missing[0]}: the logs are those of {', '.join((*SERVERS, *PROGRAMS))}")
    if not files:
        raise CannotStart(f"there is no log in {stack.folder} yet: run `make up`")
    os.execvp("tail", ["tail", "-n", "10", "-F", *map(str, files)])


@main.command()
@click.pass_obj
def clean(stack: Stack) -> None:
    """Stop everything and drop the data; fetched programs stay."""
    client.stop(stack, (), console)
    for place in stack.folder.glob("*"):
        if place.name not in ("opt", "setup.lock"):
            shutil.rmtree(place) if place.is_dir() else place.unlink()


@main.command(hidden=True)
@click.pass_obj
def supervisor(stack: Stack) -> None:
    """Keep the processes up, in the background; `up` starts it."""
    supervise(stack.folder)


if __name__ == "__main__":
    try:
        main()
    except CannotStart as reason:
        console.print(f"[bold red]error[/] {reason}", soft_wrap=True)
        sys.exit(1)
