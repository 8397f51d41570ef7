"""`faust -A agents explain`: why a film's number is what it is."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import orjson
from faust.cli import AppCommand, argument, option

from agents.commands.operating import operating
from agents.commands.tables import show
from agents.explaining import in_log, in_store
from agents.left import left_by
from agents.log_reader import log_of
from agents.replaying import Replay
from agents.worker import app
from compose.settings import settings
from projections.queries.explanation import Explanation, Explanations
from projections.queries.versions import Versions, read_versions
from projections.sinks.redis_windows import NAMES
from schemas.streams import streams


@app.command(
    argument("video"),
    option("--timeframe", type=click.Choice(NAMES), default="all_time", show_default=True),
    option(
        "--from-log", "from_log", is_flag=True, help="Count the film's records in the log as well; 1 when it differs."
    ),
    option("--json", "as_json", is_flag=True, help="JSON, for a machine."),
)
async def explain(self: AppCommand, video: str, timeframe: Any, from_log: bool, as_json: bool) -> None:
    """What the number of VIDEO is made of, deleted or not: views counted, refused and parked, and whether the stores agree."""
    async with operating() as stores:
        versions = Versions(await read_versions(stores.pool))
        explanations = Explanations(stores.pool, stores.redis, stores.prefix, versions)
        found = await explanations.explain(video, timeframe, datetime.now(UTC))
        log = None
        if from_log:
            raw = versions.active("views")
            left = await left_by(stores.pool, raw)
            log = await in_log(Replay(log_of(settings()), streams()), found, raw, left)
    if as_json:
        told = found._asdict() | ({"in_log": log} if log is not None else {})
        click.echo(orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z, default=_plain).decode())
    else:
        _show(found)
        if log is not None:
            click.echo(f"in the log: {dict(log)}: {'equal' if log == in_store(found) else 'NOT EQUAL'}")
    differ = [witness for witness in found.witnesses if witness.equal is False]
    if differ or (log is not None and log != in_store(found)):
        raise SystemExit(1)


def _show(found: Explanation) -> None:
    since = f" since {found.from_:%F %T}" if found.from_ else ""
    click.echo(f"{found.video_id}, {found.timeframe}{since}: {found.records:,} records")
    show(("what", "views", "such as"), _lines(found))
    show(
        ("partition", "counted", "late", "from", "to"),
        ((f"views/{at.partition}", at.views, at.late, at.first_offset, at.last_offset) for at in found.stretches),
    )
    show(
        ("store", "says", "raw views up to there", "equal"),
        (
            (item.source, item.views, item.raw, item.why if item.equal is None else item.equal)
            for item in found.witnesses
        ),
    )


def _lines(found: Explanation) -> Iterator[tuple[str, int, str]]:
    yield "counted", found.counted, f"{found.late:,} of them late"
    for reason, views, examples in found.refused:
        of = (f"{example['view_id']} ({example['place']}{_more(example)})" for example in examples)
        yield reason, views, ", ".join(of)
    named = ", ".join(f"{record['place']} ({record['reason']})" for record in found.parked)
    yield "parked, whose bytes hold the id", len(found.parked), named


def _more(example: dict[str, Any]) -> str:
    if earlier := example.get("earlier_place"):
        return f", earlier at {earlier.offset:,}"
    return f", {example['ahead_seconds']:,.0f} s ahead" if "ahead_seconds" in example else ""


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    raise TypeError(type(value).__name__)
