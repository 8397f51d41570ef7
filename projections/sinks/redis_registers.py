"""Resume positions in Redis: a hash a viewer and film, in it the registers of each session."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
from redis.asyncio import Redis

from projections.changes import Change, Upsert
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Limits, Move, Piece, Refused, Rows
from projections.sinks.redis_scripts import Script

MERGE = Script(Path(__file__).parent / "lua" / "merge.lua")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Registers:
    """Each register, such as the newest position of a session, is one field: `session/updated_at`, the moment and its values in JSON."""

    def __init__(self, redis: Redis, keys: Keys, limits: Limits) -> None:
        self._redis = redis
        self._keys = keys

    def beginning(self) -> dict[str, int]:
        return {}

    def identity(self, change: Change) -> str:
        return str(_register(change).key["viewer_id"])

    def merge(self, rows: Rows, change: Change) -> None:
        """The greatest moment stays, of equals the later in the log."""
        register = _register(change)
        key, name = register.key, register.newest_by
        assert name is not None
        moment = (register.values[name] - EPOCH) // MICROSECOND
        row = key["viewer_id"], key["video_id"], f"{key['session_id']}/{name}"
        kept = rows.get(row)
        if kept is None or kept[0] <= moment:
            rows[row] = moment, {column: value for column, value in register.values.items() if column != name}

    def pieces(self, rows: Rows, most: int) -> list[Piece]:
        items = list(rows.items())
        return [items[first : first + most] for first in range(0, len(items), most)]

    async def write(self, rows: Rows, move: Move) -> bool:
        keys: dict[str, int] = {}
        registers: list[str | bytes | int] = []
        for (viewer_id, video_id, field), (moment, values) in rows.items():
            number = keys.setdefault(self._keys.position(viewer_id, video_id), len(keys) + 1)
            registers += number, field, moment, orjson.dumps(values)
        names = list(keys)
        answer = await MERGE.run(
            self._redis,
            [self._keys.checkpoints, self._keys.state, self._keys.journal(move.place), *names],
            [*move, *registers],
        )
        if answer[0] == b"refused":
            refused = names[answer[1] - 1]
            raise self.in_the_way(refused, answer[2].decode())
        return bool(answer[0] == b"applied")

    async def tick(self, now: datetime) -> None:
        """A position does not age."""

    def keys(self, rows: Rows) -> dict[str, str]:
        return {self._keys.position(viewer_id, video_id): "hash" for viewer_id, video_id, _ in rows}

    def in_the_way(self, key: str, why: str) -> Exception:
        return Refused(
            f"{key} is in the way: {why}",
            lambda change: (
                self._keys.position(_register(change).key["viewer_id"], _register(change).key["video_id"]) == key
            ),
        )


def _register(change: Change) -> Upsert:
    if isinstance(change, Upsert) and change.table == "resume" and change.newest_by is not None:
        return change
    raise Refused(f"positions take registers of `resume`, not {change}", lambda other: other == change)
