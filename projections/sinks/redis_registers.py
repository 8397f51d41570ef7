"""Resume positions in Redis: a hash a viewer and film, in it the registers of each session; and a set of the films of each viewer."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis

from projections.changes import Change, Forget, Single, Upsert, singly
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Limits, Move, Refused, Rows, told
from projections.sinks.redis_scripts import Script
from schemas.log import EPOCH

MERGE = Script(Path(__file__).parent / "lua" / "merge.lua")
MICROSECOND = timedelta(microseconds=1)


class Registers:
    """Each register, such as the newest position of a session, is one field: `session/updated_at`, the moment and its values in JSON."""

    def __init__(self, redis: Redis, keys: Keys, limits: Limits) -> None:
        self._redis = redis
        self._keys = keys

    def beginning(self) -> dict[str, int]:
        return {}

    def identity(self, change: Single) -> str:
        return str(_placed(change).key["viewer_id"])

    async def learn(self) -> None:
        """Registers are merged alike at any time."""

    def merge(self, rows: Rows, change: Change) -> None:
        """The greatest moment stays, of equals the later in the log. Who is forgotten is so whatever else a batch says of them."""
        for placed in map(_placed, singly([change])):
            if isinstance(placed, Forget):
                rows[placed.key["viewer_id"],] = None
                continue
            assert placed.newest_by is not None
            names = [placed.newest_by, placed.greatest] if placed.greatest else [placed.newest_by]
            _keep(rows, placed, placed.newest_by, {n: value for n, value in placed.values.items() if n not in names})
            if placed.greatest:
                _keep(rows, placed, placed.greatest, {})

    def condensed(self, change: Change) -> Change:
        return change

    def pieces(self, rows: Rows, most: int) -> list[Rows]:
        items = list(rows.items())
        return [dict(items[first : first + most]) for first in range(0, len(items), most)]

    async def write(self, rows: Rows, moves: Sequence[Move]) -> bool:
        viewers: dict[str, int] = {}
        hashes: dict[tuple[str, str], int] = {}
        registers: list[str | bytes | int] = []
        for viewer_id, *rest in rows:
            viewers.setdefault(viewer_id, len(viewers) + 1)
            if rest:
                video_id, field = rest
                number = hashes.setdefault((viewer_id, video_id), len(hashes) + 1)
                moment, values = rows[viewer_id, video_id, field]
                registers += number, field, moment, orjson.dumps(values)
        names = [*map(self._keys.films, viewers), *(self._keys.position(*place) for place in hashes)]
        keys = self._keys
        answer = await MERGE.run(
            self._redis,
            [keys.checkpoints, keys.state, keys.journal(moves[0].place), keys.forgotten, *names],
            [
                *told(moves),
                len(viewers),
                len(hashes),
                *(word for viewer in viewers for word in (viewer, int((viewer,) in rows), keys.position(viewer, ""))),
                *(word for viewer_id, video_id in hashes for word in (viewers[viewer_id], video_id)),
                *registers,
            ],
        )
        if answer[0] == b"refused":
            refused = names[answer[1] - 1]
            raise self.in_the_way(refused, answer[2].decode())
        return bool(answer[0] == b"applied")

    async def tick(self, now: datetime) -> None:
        """A position does not age."""

    def keys(self, rows: Rows) -> dict[str, str]:
        hashes = {self._keys.position(row[0], row[1]): "hash" for row in rows if len(row) > 1}
        return hashes | {self._keys.films(row[0]): "set" for row in rows}

    def in_the_way(self, key: str, why: str) -> Exception:
        def concerns(change: Change) -> bool:
            places = [_placed(one).key for one in singly([change])]
            return any(
                key
                in (
                    self._keys.films(place["viewer_id"]),
                    self._keys.position(place["viewer_id"], place.get("video_id", "")),
                )
                for place in places
            )

        return Refused(f"{key} is in the way: {why}", concerns)


def _keep(rows: Rows, upsert: Upsert, name: str, values: dict[str, Any]) -> None:
    """The register `name` of a session, and what belongs to it."""
    key, moment = upsert.key, (upsert.values[name] - EPOCH) // MICROSECOND
    row = key["viewer_id"], key["video_id"], f"{key['session_id']}/{name}"
    kept = rows.get(row)
    if kept is None or kept[0] <= moment:
        rows[row] = moment, values


def _placed(change: Single) -> Upsert | Forget:
    if isinstance(change, Upsert) and change.table == "resume" and change.newest_by is not None:
        return change
    if isinstance(change, Forget) and change.table == "resume" and not change.blank:
        return change
    raise Refused(
        f"positions take registers of `resume`, not {change}", lambda other: change in (other, *singly([other]))
    )
