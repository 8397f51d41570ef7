"""One shard in Redis: its checkpoints, and how a batch of any size is written in short calls and yet in one step.

A batch of more rows than one call may write is written down first, piece by piece in a list, the *journal*; the same call moves the
checkpoint from `100` to `100>5100 3`: on its way from 100 to 5100, three pieces left. Each further call writes a piece, drops it from the
journal and counts down; the last one moves the checkpoint to `5100`. From the first of these calls the batch is applied as surely as if
it were written: whoever next asks for the checkpoint writes what is left. Batches of several partitions that are written as one lie in the
journal of the first: then each checkpoint names that one as well, `100>5100 3 views/7`, and every call counts down all of them.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Layout, Move, Rows
from projections.sinks.redis_scripts import Script
from projections.sinks.sink import Step, StoreUnavailable

FOLDER = Path(__file__).parent / "lua"
BEGIN, CHECKPOINT, PREPARE, SWEEP, TYPES = (
    Script(FOLDER / f"{name}.lua") for name in ("begin", "checkpoint", "prepare", "sweep", "types")
)
SWEPT_AT_ONCE = CHECKED_AT_ONCE = 500


class Shard:
    """Raises what its layout raises, and what redis-py raises."""

    def __init__(self, redis: Redis, keys: Keys, layout: Layout, most_rows: int) -> None:
        self.layout = layout
        self._redis = redis
        self._keys = keys
        self._most_rows = most_rows

    async def prepare(self) -> None:
        """Begin the state where there is none; what a drop that was cut short has left behind goes first."""
        if await self._redis.hexists(self._keys.state, "epoch"):
            return
        await self._sweep()
        beginning = {"epoch": secrets.token_hex(8), **self.layout.beginning()}
        await PREPARE.run(self._redis, [self._keys.state], [str(word) for item in beginning.items() for word in item])

    async def checkpoint(self, place: str, log: str) -> tuple[int, bytes]:
        """The next offset and the log that it speaks of, set at 0 of `log` when there is none."""
        while not (
            found := await CHECKPOINT.run(self._redis, [self._keys.checkpoints, self._keys.state], [place, log])
        ):
            await self.prepare()
        value, written_log = found
        if b">" in value:
            await self._complete(place)
            return await self.checkpoint(place, log)
        await self.layout.learn()
        return int(value), written_log

    async def next_offset(self, place: str) -> int | None:
        """The next offset, None when there is no checkpoint or a batch is on its way."""
        value = await self._redis.hget(self._keys.checkpoints, place)
        return int(value) if value is not None and value.isdigit() else None

    async def newest_step(self, place: str) -> Step:
        """A batch that is on its way is as good as written."""
        found: list[Any] = await self._redis.hmget(self._keys.checkpoints, [place, f"{place}:step"])
        value, name = found
        next_offset = 0 if value is None else int(value.partition(b" ")[0].rpartition(b">")[2])
        return Step(next_offset, name.decode() if name else None)

    async def apply(self, rows: Rows, moves: Sequence[Move]) -> bool:
        """Write all rows, which are taken, and move; False, with nothing written, when a checkpoint is not where it is expected."""
        # Of what does not fit into one call, many follow one another: each is to be shorter still.
        is_short = len(rows) <= self._most_rows
        pieces = [rows] if is_short else self.layout.pieces(rows, -(-self._most_rows // 2))
        if len(pieces) <= 1:
            return await self.layout.write(rows, moves)
        await self._check_types(rows)
        rows.clear()  # they are in the pieces now, and many
        lead, count = moves[0].place if len(moves) > 1 else "", len(pieces)
        begun = [move._replace(next=_Way(move.expected, move.next, count, lead).value) for move in moves]
        names = [self._keys.checkpoints, self._keys.state, self._keys.journal(moves[0].place)]
        said = orjson.dumps([(*move[:3], move.step) for move in begun])
        if not await BEGIN.run(self._redis, names, [said, *(orjson.dumps(list(piece.items())) for piece in pieces)]):
            return False
        for left, piece in zip(range(count, 0, -1), pieces, strict=True):
            steps = [
                _Way(move.expected, move.next, left, lead)
                .step(move.place)
                ._replace(channel=move.channel, message=move.message if left == 1 else "")
                for move in moves
            ]
            if not await self.layout.write(piece, steps):
                await self._complete(moves[0].place)
                break
        return True

    async def drop(self) -> None:
        """Remove everything."""
        # In one step, so that no checkpoint outlives its state; state without `epoch` counts for nothing.
        await self._redis.unlink(self._keys.state, self._keys.checkpoints)
        await self._sweep()

    async def _complete(self, place: str) -> None:
        """Write what is left of a batch, while others may be at it too. Raises StoreUnavailable where its journal is lost."""
        while True:
            value: Any = await self._redis.hget(self._keys.checkpoints, place)
            if (way := _Way.read(value)) is None:
                return
            lead = way.lead or place
            journal = self._keys.journal(lead)
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hgetall(self._keys.checkpoints)
                pipeline.lindex(journal, 0)
                checkpoints, piece = await pipeline.execute()
            of_each = {name.decode(): value for name, value in checkpoints.items() if b":" not in name}
            ways = [(name, _Way.read(value)) for name, value in of_each.items()]
            steps = [one.step(name) for name, one in ways if one and (one.lead or name) == lead]
            if steps and piece is None:
                raise StoreUnavailable("redis", f"{journal} is not there, with what was on its way: rebuild it")
            if steps:
                steps.sort(key=lambda step: step.place != lead)
                await self.layout.write(_rows(orjson.loads(piece)), steps)

    async def _check_types(self, rows: Rows) -> None:
        """Refuse a batch as a whole: once it is begun it is applied, and a key of a wrong type would be in the way for ever."""
        types = list(self.layout.keys(rows).items())
        for first in range(0, len(types), CHECKED_AT_ONCE):
            names, expected = zip(*types[first : first + CHECKED_AT_ONCE], strict=True)
            if wrong := await TYPES.run(self._redis, names, expected):
                key = names[wrong - 1]
                raise self.layout.in_the_way(key, f"it should be a {expected[wrong - 1]}")

    async def _sweep(self) -> None:
        found = [key async for key in self._redis.scan_iter(match=f"{self._keys.root}*", count=SWEPT_AT_ONCE)]
        for first in range(0, len(found), SWEPT_AT_ONCE):
            keys = [self._keys.state, *found[first : first + SWEPT_AT_ONCE]]
            if not await SWEEP.run(self._redis, keys, []):
                return


class _Way(NamedTuple):
    """A checkpoint on its way from one offset to another, with so many pieces left in the journal; of the place `lead` if it is one of
    several, which then names itself too."""

    expected: str
    next: str
    left: int
    lead: str = ""

    @classmethod
    def read(cls, value: bytes | None) -> "_Way | None":
        """None for a checkpoint that stands still."""
        if value is None or b">" not in value:
            return None
        way, left, *lead = value.decode().split(" ")
        expected, _, following = way.partition(">")
        return cls(expected, following, int(left), *lead)

    @property
    def value(self) -> str:
        """As it lies there."""
        return f"{self.expected}>{self.next} {self.left} {self.lead}".rstrip() if self.left else self.next

    def step(self, place: str) -> Move:
        """The move behind the next piece."""
        return Move(place, self.value, self._replace(left=self.left - 1).value)


def _rows(items: list[Any]) -> Rows:
    return {tuple(key): value for key, value in items}
