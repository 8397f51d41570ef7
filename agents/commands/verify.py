"""`faust -A agents verify`: is the version that is ready what the one that answers is?"""

import click
from faust.cli import AppCommand
from rich.console import Console

from agents.commands.operating import name_or_all, names_of, operating
from agents.commands.tables import show
from agents.verifying import Verified, Verifying, told
from agents.worker import app
from compose.settings import settings


@app.command(name_or_all)
async def verify(self: AppCommand, name: str) -> None:
    """Compare the newest ready version with the one that answers, both held at the same places of the log."""
    console, are_equal = Console(stderr=True), True
    async with operating() as stores:
        for each in names_of(name):
            with console.status(f"{each}: two versions are compared"):
                verified = await Verifying(settings(), stores).verify(each)
            tell(verified)
            are_equal = are_equal and verified.is_equal
    if not are_equal:
        raise SystemExit(1)


def tell(verified: Verified) -> None:
    projection, active, other = verified.active.projection, verified.active.number, verified.other.number
    accounts = list(verified.accounts.values())
    figures = ("records", "accepted", "duplicate", "future", "ruled_out", "parked", "ignored", "views", "views_held")
    show(
        (projection, *(f"version {number}" for number in verified.accounts)),
        [
            *((name.replace("_", " "), *(_figure(getattr(account, name)) for account in accounts)) for name in figures),
            ("adds up", *("yes" if account.adds_up else "NO" for account in accounts)),
        ],
    )
    if verified.shown:
        show(("table", "key", f"version {active}", f"version {other}"), map(told, verified.shown))
    folded = sum(verified.places.values())
    click.echo(
        f"{projection} versions {active} and {other} at {folded:,} events: "
        + (f"equal, all {verified.rows:,} rows" if not verified.different else f"{verified.different:,} rows differ")
    )


def _figure(figure: int | None) -> int | str:
    return "-" if figure is None else figure
