"""A shard of the board whole, with the places of the log that it speaks of: what an audit proves."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from projections.leaderboard import leaderboard
from projections.queries.still import Edges
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_scripts import Script
from projections.sinks.redis_windows import ROLLING
from projections.sinks.sink import StoreUnavailable
from schemas.log import Place
from schemas.streams import streams

WHOLE = Script(Path(__file__).parent / "lua" / "whole.lua")
PATIENCE_SECONDS = 30.0  # for a bucket that is leaving a window just then
LOOK_AGAIN_SECONDS = 0.1


class Board(NamedTuple):
    """Windows by their name, each with its films' views, and where each begins; `places` are the first not yet folded, `steps` the names of
    the steps that brought it there."""

    windows: dict[str, dict[str, int]]
    edges: Edges
    deleted: set[str]
    places: list[Place]
    steps: list[str]


async def read_board(redis: Redis, keys: Keys, windows: Sequence[str]) -> Board:
    """These windows of a shard in one step: for as long as Redis reads them, nothing else happens there.

    Raises StoreUnavailable, also where there is no board, or a bucket does not finish leaving a window in half a minute.
    """
    places = [f"{topic}/{n}" for topic in leaderboard.reads for n in range(streams().topics[topic].partitions)]
    names = [keys.state, keys.checkpoints, keys.deleted, *map(keys.top, windows), *map(keys.journal, places)]
    for _ in range(round(PATIENCE_SECONDS / LOOK_AGAIN_SECONDS)):
        state, checkpoints, deleted, tops, journals = await WHOLE.run(redis, names, [len(windows)])
        board = _board(_hash(state), _hash(checkpoints), windows, tops, dict(zip(places, journals, strict=True)))
        if board is not None:
            return board._replace(deleted={video_id.decode() for video_id in deleted})
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    raise StoreUnavailable("redis", f"a bucket has been leaving a window of {keys.root} for {PATIENCE_SECONDS:g} s")


def _board(
    state: dict[str, str],
    checkpoints: dict[str, str],
    windows: Sequence[str],
    tops: list[Any],
    journals: dict[str, list[bytes]],
) -> Board | None:
    """None while a bucket is leaving one of the windows: films that are still to leave it are counted in it."""
    if "ticked_ms" not in state:
        raise StoreUnavailable("redis", "it holds no leaderboard yet: a worker makes it")
    if any(f"leaving:{name}" in state for name in windows):
        return None
    minutes = {window.name: window.minutes for window in ROLLING}
    edges = {name: int(state.get(f"edge:{name}", 0)) * minutes.get(name, 1) for name in windows}
    counted = {
        name: {video_id.decode(): int(float(views)) for video_id, views in zip(top[::2], top[1::2], strict=True)}
        for name, top in zip(windows, tops, strict=True)
    }
    places = []
    for place, value in checkpoints.items():
        if ":" in place:  # which log it is, and the step that moved it last
            continue
        topic, _, number = place.partition("/")
        # A batch on its way reads as `100>5100 3`, and is applied as surely as if it were written: the journal has what is left of it.
        places.append(Place(topic, int(number), int(value.partition(" ")[0].rpartition(">")[2])))
        if ">" in value:
            _add(counted, edges, journals[place])
    steps = [name for place, name in checkpoints.items() if place.endswith(":step") and name]
    return Board(counted, edges, set(), sorted(places), steps)


def _add(counted: dict[str, dict[str, int]], edges: Edges, pieces: list[bytes]) -> None:
    for piece in pieces:
        for (video_id, minute), views in orjson.loads(piece):
            for name, films in counted.items():
                if minute is not None and minute >= edges[name]:
                    films[video_id] = films.get(video_id, 0) + views


def _hash(fields: list[bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=True)}
