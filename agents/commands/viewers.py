"""`faust -A agents forget` and `export`: what an operator does when a viewer asks for it by their pseudonym."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
from faust.cli import AppCommand, argument, option
from pydantic import TypeAdapter, ValidationError

from agents.worker import app
from compose.connections import open_postgres
from compose.log import LogUnavailable, open_log
from compose.settings import settings
from compose.viewers import ViewerKeys
from projections.queries import viewers
from projections.queries.versions import open_versions
from projections.queries.viewers import ViewerRecords
from projections.sinks.sink import StoreUnavailable
from schemas.bounds import Id

SOURCE = "/entertainmenttime/operator"


class Pseudonym(click.ParamType):
    """A viewer's pseudonym."""

    name = "pseudonym"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            found: str = TypeAdapter(Id).validate_python(value)
        except ValidationError:
            self.fail(f"{value!r} is no pseudonym: 1 to 64 of A-Z, a-z, 0-9, dot, underscore, colon and hyphen")
        return found


@app.command(argument("pseudonym", type=Pseudonym()))
async def forget(self: AppCommand, pseudonym: str) -> None:
    """Forget a viewer for good: who is behind PSEUDONYM, positions, history, and what was watched by whom. Totals stay as they are."""
    async with asking() as (keys, records):
        if await keys.given_at(pseudonym) is None:
            if forgotten_at := await keys.forgotten_at(pseudonym):
                click.echo(f"{pseudonym} was forgotten at {forgotten_at:%F %T}")
                return
            # Another service may speak of viewers that this system gave no pseudonym to.
            if not await records.exist(pseudonym):
                sys.exit(nobody(pseudonym))
        async with open_log(settings(), SOURCE) as log:
            appended = await keys.forget(pseudonym, log)
    click.echo(f"forgotten by {appended.place}; each projection drops what it holds when it has come there")


@app.command(
    argument("pseudonym", type=Pseudonym()),
    option(
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where to write it, if not to standard output.",
    ),
)
async def export(self: AppCommand, pseudonym: str, output: Path | None) -> None:
    """Everything that is held of a viewer, as JSON."""
    async with asking() as (keys, records):
        given_at = await keys.given_at(pseudonym)
        if forgotten_at := await keys.forgotten_at(pseudonym):
            sys.exit(f"{pseudonym} was forgotten at {forgotten_at:%F %T}: nothing is held any more")
        if given_at is None and not await records.exist(pseudonym):
            sys.exit(nobody(pseudonym))
        with click.open_file(str(output or "-"), "wb") as file:
            async for piece in viewers.export(records, pseudonym, given_at):
                file.write(piece)


def nobody(pseudonym: str) -> str:
    return f"there is no viewer {pseudonym!r}: no pseudonym of that name was given, and nothing is held under it"


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[ViewerKeys, ViewerRecords]]:
    """Ends the command in words when a server is away: it may be given again, the same."""
    try:
        async with open_postgres(settings()) as pool, open_versions(pool) as versions:
            yield ViewerKeys(pool), ViewerRecords(pool, versions)
    except (StoreUnavailable, LogUnavailable) as error:
        sys.exit(f"{error}; give the command again")
