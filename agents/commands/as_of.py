"""`faust -A agents as-of`: what the system would have answered at a moment."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
import orjson
from faust.cli import AppCommand, argument, option
from pydantic import TypeAdapter, ValidationError

from agents.commands.operating import operating
from agents.commands.tables import show
from agents.handover import Partition
from agents.log_reader import log_of
from agents.past import Past
from agents.replaying import Replay
from agents.settling import until_settled
from agents.worker import app
from compose.settings import settings
from projections.leaderboard import WINDOWS
from projections.queries.catalogue import Video, newest_first
from projections.queries.leaderboard import Timeframe
from projections.queries.past import InTheFuture, settling_seconds
from projections.queries.statistics import TABLES
from projections.queries.versions import Versions, read_versions
from schemas.bounds import Moment
from schemas.streams import DECISIONS, streams

READ_FOR = {"top": ("views", "videos"), "catalogue": ("videos",), "stats": ("views", "videos"), "history": ("views",)}
SHOWN = ("video_id", "content_type", "title", "genre", "status", "progress", "duration_seconds", "uploaded_at")


class MomentType(click.ParamType):
    """An RFC 3339 time that is past."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        try:
            moment: datetime = TypeAdapter(Moment).validate_python(value)
            settling_seconds(moment, datetime.now(UTC))
        except ValidationError as error:
            self.fail(error.errors()[0]["msg"])
        except InTheFuture as error:
            self.fail(str(error))
        return moment


@app.command(
    argument("time", type=MomentType()),
    argument("what", type=click.Choice(["top", "catalogue", "stats", "history"])),
    argument("video", required=False),
    option("--timeframe", type=click.Choice([window.name for window in WINDOWS]), default="day", show_default=True),
    option("--bucket", type=click.Choice(list(TABLES)), default="hour", show_default=True, help="Of a history."),
    option("--limit", type=click.IntRange(1, 1_000), default=10, show_default=True, help="How many films."),
    option("--json", "as_json", is_flag=True, help="JSON, for a machine."),
)
async def as_of(
    self: AppCommand,
    time: datetime,
    what: str,
    video: str | None,
    timeframe: Any,
    bucket: Any,
    limit: int,
    as_json: bool,
) -> None:
    """What the system would have answered at TIME (RFC 3339), from the log alone; `stats` and `history` are those of a VIDEO."""
    if what in ("stats", "history") and video is None:
        raise SystemExit(f"{what} of which VIDEO?")
    await asyncio.sleep(settling_seconds(time, datetime.now(UTC)))
    async with operating() as stores:
        await until_settled(settings(), _partitions((*READ_FOR[what], DECISIONS)), time)
        past = Past(Replay(log_of(settings()), streams()), time, Versions(await read_versions(stores.pool)))
        match what:
            case "top":
                rows = await _top(past, limit, timeframe)
            case "catalogue":
                rows = _films(await past.films(), video, limit)
            case "stats":
                rows = [(await past.views(str(video)))._asdict()]
            case _:
                rows = [point._asdict() for point in await past.history(str(video), bucket)]
    if as_json:
        click.echo(orjson.dumps({"as_of": time, "source": "log", "items": rows}, option=orjson.OPT_UTC_Z).decode())
    else:
        show(rows[0] if rows else [what], (row.values() for row in rows))


def _partitions(topics: Iterable[str]) -> list[Partition]:
    return [Partition(topic, number) for topic in topics for number in range(streams().topics[topic].partitions)]


async def _top(past: Past, limit: int, timeframe: Timeframe) -> list[dict[str, Any]]:
    films = await past.films()
    found = await past.top(limit, timeframe)
    titles = {video_id: film.title for video_id, film in films.items()}
    return [
        {"rank": rank, "video_id": video_id, "title": titles.get(video_id), "views": views}
        for rank, video_id, views in found.items
    ]


def _films(films: Mapping[str, Video], video_id: str | None, limit: int) -> list[dict[str, Any]]:
    """Those that had been uploaded, the newest first; one film, if it is named, in whatever state."""
    named = [film for film in films.values() if film.video_id == video_id]
    chosen = newest_first(films.values())[:limit] if video_id is None else named
    return [{name: getattr(film, name) for name in SHOWN} for film in chosen]
