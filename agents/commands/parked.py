"""`faust -A agents parked`: records that could not be folded, and what is decided about them."""

import getpass
from collections.abc import Iterable

import click
from faust.cli import AppCommand, argument, option
from pydantic import ValidationError

from agents.commands.operating import operating
from agents.commands.tables import show as show_table
from agents.decisions import Heard, decisions_of
from agents.log_ends import open_log_ends
from agents.parked import Found, Wanted, count_parked, find_parked, readable, retried_in_vain
from agents.ruling import CARRIED_OUT, CarriedOut, Operator, Ruled, Word, alone
from agents.stores import Stores
from agents.worker import app
from compose.log import LogUnavailable, open_log
from compose.settings import settings
from compose.transactions import open_transactions
from projections.queries.versions import Versions, read_versions
from schemas.events import RecordDiscarded, RecordRetried
from schemas.log import Place
from schemas.streams import streams

SOURCE = "/agents/parked"
TRANSACTIONS = "decisions"
DONE = {"retry": "retried", "discard": "discarded"}


class RecordId(click.ParamType):
    """`topic:partition:offset`, as the list prints it."""

    name = "record"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> Place:
        try:
            return Place.of(str(value))
        except ValueError:
            self.fail(f"{value!r} names no record; write topic:partition:offset, such as views:3:41207", param, context)


@app.command(
    argument("word", type=click.Choice(["list", "show", "retry", "discard"]), default="list"),
    argument("records", nargs=-1, type=RecordId()),
    option("--projection", type=click.Choice([*streams().projections]), help="Only what this projection has parked."),
    option("--topic", type=click.Choice([*streams().topics]), help="Only records of this topic."),
    option("--reason", help="Only what was parked for this reason, such as unknown-type."),
    option(
        "--all", "every", is_flag=True, help="Retry or discard all that is parked, of what the other options leave."
    ),
    option("--by", default=getpass.getuser, help="Who decides; by default whoever is logged in."),
    option("--why", help="Why; a discard has to say."),
    option("--decided", is_flag=True, help="List decided ones too."),
    option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="List so many."),
)
async def parked(
    self: AppCommand,
    word: str,
    records: tuple[Place, ...],
    projection: str | None,
    topic: str | None,
    reason: str | None,
    every: bool,
    by: str,
    why: str | None,
    decided: bool,
    limit: int,
) -> None:
    """Records that could not be folded: list them, show some whole, retry or discard them.

    A retried record is read by the release that runs now, and folded once; what waited behind it follows. A discarded one is never folded.
    """
    if word != "list" and not (records or (every and word != "show")):
        raise click.UsageError(
            f"name the records, such as `parked {word} views:3:41207`, or say --all to retry or discard"
        )
    if word == "discard" and not why:
        raise click.UsageError("say --why they are discarded: it is kept for ever")
    wanted = Wanted(projection, topic, reason, records, decided=decided or word == "show")
    async with operating() as stores:
        if word in ("retry", "discard"):
            click.echo(words(word, await rule(stores, "retry" if word == "retry" else "discard", wanted, by, why)))
            return
        found = await find_parked(stores.pool, wanted, limit)
        if word == "show":
            heard = decisions_of(settings(), streams())
            await heard.refresh()
            show_whole(found, heard.about)
        else:
            show_list(found, await count_parked(stores.pool, wanted))


async def rule(stores: Stores, word: Word, wanted: Wanted, by: str, why: str | None) -> Ruled:
    """Append the decisions. What cannot be said, or appended, ends the command in words."""
    try:
        async with (
            open_log(settings(), SOURCE) as log,
            open_log_ends(settings()) as ends,
            alone(stores.pool),
            open_transactions(settings(), SOURCE, TRANSACTIONS) as transactions,
        ):
            decisions, carried_out = decisions_of(settings(), streams()), await look_what_is_carried_out(stores)
            operator = Operator(log, transactions, ends, decisions, carried_out)
            found = await find_parked(stores.pool, wanted)
            return await operator.decide(word, found, by=by, why=why, named=wanted.places)
    except LogUnavailable as unavailable:
        raise SystemExit(f"Error: {unavailable}; asked again, it goes on with what is left") from None
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SystemExit(f"Error: {said}") from None


async def look_what_is_carried_out(stores: Stores) -> CarriedOut:
    """By every version."""
    versions = Versions(await read_versions(stores.pool))
    offsets = {}
    for version in (v for name in streams().projections for v in versions.known(name)):
        if version.state != "retired":
            offsets[version.full_name] = (await stores.checkpoints(version).next_offsets([CARRIED_OUT]))[CARRIED_OUT]
    return CarriedOut(offsets, await retried_in_vain(stores.pool))


def words(word: str, ruled: Ruled) -> str:
    told = [f"{ruled.decided:,} records {DONE[word]}"]
    if ruled.on_their_way:
        told.append(f"a decision about {ruled.on_their_way:,} is on its way already")
    if ruled.waiting:
        told.append(f"{ruled.waiting:,} wait behind another record of their key and follow it by themselves")
    if ruled.marks:
        told.append(f"{ruled.marks:,} are retries themselves: retry the views that they name, and discard these")
    return "; ".join([*told, "`faust -A agents parked` tells what is left"])


def show_list(found: Iterable[Found], count: int) -> None:
    rows = [
        (item.projection, item.place.id, item.outcome or item.reason, item.detail, f"{item.parked_at:%F %T}")
        for item in found
    ]
    show_table(("projection", "record", "reason", "what is wrong", "parked at"), rows)
    if len(rows) < count:
        click.echo(f"{len(rows):,} of {count:,}; --limit shows more")


def show_whole(found: Iterable[Found], heard: Heard) -> None:
    """A record once, the decisions about it, then each projection that has parked it."""
    shown: Place | None = None
    for item in found:
        if item.place != shown:
            shown = item.place
            click.echo(f"\n{item.place.id}, recorded {item.recorded_at:%F %T.%f} UTC")
            for name, value in item.headers:
                click.echo(f"  {name}: {readable(value)}")
            if item.is_blank:
                click.echo("  it names a viewer who was forgotten, here by stars; a retry reads it from the log")
            click.echo(f"  key: {readable(item.key)}\n  value: {readable(item.value)}")
            for ruling in heard(item.place.id):
                decision = ruling.decision
                assert isinstance(decision, RecordRetried | RecordDiscarded)
                said = f": {decision.why}" if decision.why else ""
                click.echo(
                    f"  decisions:0:{ruling.at} {decision.type.split('.')[-2]} for {', '.join(decision.projections)} "
                    f"by {decision.by} at {decision.occurred_at:%F %T} UTC{said}"
                )
        became = f"{item.outcome} by decisions:0:{item.decided_by}" if item.outcome else "undecided"
        click.echo(f"  {item.projection} v{item.version}: {item.reason}, {became}: {item.detail}")
    if shown is None:
        click.echo("nothing of this is parked")
