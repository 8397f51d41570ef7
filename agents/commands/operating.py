"""What the commands about versions share: which projections are meant, the open stores, and refusals that are words on the screen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click
from aiokafka.errors import KafkaError
from faust.cli import argument, option

from agents.known_poison import NewPoison
from agents.rebuilding import Stopped
from agents.registry import NotNow, register_declared
from agents.settling import NotSettled
from agents.stores import Stores, open_stores
from compose.settings import settings
from projections.sinks.sink import StoreUnavailable
from schemas.streams import streams

EVERY = "all"

name = argument("name", type=click.Choice([*streams().projections]))
name_or_all = argument("name", type=click.Choice([*streams().projections, EVERY]))
version = option("--version", "number", type=click.IntRange(1), help="Which version, where there are several.")


def names_of(asked: str) -> list[str]:
    """Every projection for `all`."""
    return [*streams().projections] if asked == EVERY else [asked]


@asynccontextmanager
async def operating() -> AsyncIterator[Stores]:
    """The stores, with every projection in the registry. What cannot be ends the command with its words and status 1."""
    try:
        async with open_stores(settings()) as stores:
            await register_declared(stores.pool, streams())
            yield stores
    except (NotNow, NewPoison, NotSettled, Stopped, StoreUnavailable, KafkaError, TimeoutError) as refusal:
        # Faust would show a traceback of any exception but this one.
        raise SystemExit(f"Error: {refusal}") from None
