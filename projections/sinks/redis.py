"""The sink in Redis: a script a step, which writes state and checkpoint together or neither."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from projections.changes import Change
from projections.projection import Projection
from projections.sinks.redis_board import Board
from projections.sinks.redis_keys import Keys, channel, shard_of, shards_of
from projections.sinks.redis_registers import Registers
from projections.sinks.redis_scripts import Script, reaching_redis
from projections.sinks.redis_steps import Layout, Limits, Move, Refused, Step, steps
from projections.sinks.sink import ChangeRefused, Checkpoint, CheckpointMoved, LogIdentity
from schemas.log import Place

FOLDER = Path(__file__).parent / "lua"
CHECKPOINT, PREPARE, SWEEP = (Script(FOLDER / f"{name}.lua") for name in ("checkpoint", "prepare", "sweep"))
SWEPT_AT_ONCE = 500
DEFAULT_LIMITS = Limits()

LAYOUTS: dict[str, type[Board] | type[Registers]] = {"leaderboard": Board, "resume": Registers}


class RedisSink:
    """A projection's state in Redis, in `shards` that each hold their own checkpoints; a checkpoint is the least of its shards'.

    State and checkpoints lie in the same database and are lost or restored together: an emptied Redis is folded from the start again and
    one restored from an older snapshot from its older checkpoint, both exactly. Where only a part is lost, `apply` and `tick` refuse.
    """

    def __init__(
        self, redis: Redis, projection: Projection, prefix: str, *, shards: int = 1, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._redis = redis
        self._most_rows = limits.rows
        self._name = projection.full_name
        self._channel = channel(prefix)
        self._keys = shards_of(prefix, projection.name, projection.version, shards)
        self._layouts: list[Layout] = [LAYOUTS[projection.name](redis, keys, limits) for keys in self._keys]

    async def prepare(self) -> None:
        """Begin the state where there is none; what a drop that was cut short has left behind goes first."""
        with self._refusing():
            for keys, layout in zip(self._keys, self._layouts, strict=True):
                if await self._is_prepared(keys):
                    continue
                await self._sweep(keys)
                beginning: dict[str, str | int] = {"epoch": secrets.token_hex(8), **layout.beginning()}
                await PREPARE.run(self._redis, [keys.state], [word for item in beginning.items() for word in item])

    async def checkpoint(self, topic: str, partition: int, log: LogIdentity) -> Checkpoint:
        """How far every shard is; on the first call, and when Redis was emptied, that is offset 0 of `log`."""
        found = [await self._shard_checkpoint(keys, Place(topic, partition, 0), log) for keys in self._keys]
        other_log = [checkpoint for checkpoint in found if checkpoint.log != log]
        return min(other_log or found, key=lambda checkpoint: checkpoint.next_offset)

    async def apply(
        self, changes: Sequence[Change], *, expected: Place, next_offset: int, offsets: Sequence[int] | None = None
    ) -> None:
        """Write `changes` in steps of about 10 ms, cut at `offsets`.

        A shard that is ahead, because a worker died between two shards, takes only what it has not yet.
        """
        partition = f"{expected.topic}/{expected.partition}"
        starts = await self._starts(partition, expected)
        if offsets is None:
            if any(expected.offset < start < next_offset for start in starts):
                raise ValueError(f"{self._name}: a shard stands inside the batch after {expected}: offsets are needed")
            offsets = [expected.offset] * len(changes)
        plans = self._plans(changes, offsets, starts, next_offset)
        behind = [shard for shard, start in enumerate(starts) if start < next_offset]
        for shard in behind:
            # Whoever waits for the checkpoint is told when the last shard has moved.
            message = f"{self._name} {expected.topic} {expected.partition}" if shard == behind[-1] else ""
            at = starts[shard]
            for step in plans[shard]:
                told = message and f"{message} {step.next_offset}"
                move = Move(partition, at, step.next_offset, self._channel, told)
                if not await self._write(self._layouts[shard], step, move):
                    raise CheckpointMoved(self._name, expected)
                at = step.next_offset

    async def tick(self, now: datetime) -> None:
        """Move the windows' edges to `now`, never backwards; several workers may tick at once.

        The first tick belongs before the first batch: until then every window holds everything, bucket by bucket.
        """
        for layout in self._layouts:
            with self._refusing():
                await layout.tick(now)

    async def drop(self) -> None:
        for keys in self._keys:
            with self._refusing():
                # In one step, so that no checkpoint outlives its state nor state without `epoch` counts for anything.
                await self._redis.unlink(keys.state, keys.checkpoints)
                await self._sweep(keys)

    def _plans(
        self, changes: Sequence[Change], offsets: Sequence[int], starts: Sequence[int], next_offset: int
    ) -> list[list[Step]]:
        try:
            if len(self._keys) == 1:
                return [list(steps(self._layouts[0], changes, offsets, next_offset, self._most_rows))]
            parts: list[tuple[list[Change], list[int]]] = [([], []) for _ in starts]
            for change, offset in zip(changes, offsets, strict=True):
                shard = shard_of(self._layouts[0].identity(change), len(starts))
                if offset >= starts[shard]:
                    parts[shard][0].append(change)
                    parts[shard][1].append(offset)
            return [
                list(steps(layout, *part, next_offset, self._most_rows))
                for layout, part in zip(self._layouts, parts, strict=True)
            ]
        except Refused as error:
            raise self._refusal(error, changes) from None

    async def _starts(self, partition: str, expected: Place) -> list[int]:
        """Where each shard stands. Raises CheckpointMoved unless the least is `expected`; a single one is checked by its script."""
        if len(self._keys) == 1:
            return [expected.offset]
        with self._refusing():
            found = [await self._redis.hget(keys.checkpoints, partition) for keys in self._keys]
        starts = [int(offset) for offset in found if offset is not None]
        if len(starts) < len(found) or min(starts) != expected.offset:
            raise CheckpointMoved(self._name, expected)
        return starts

    async def _write(self, layout: Layout, step: Step, move: Move) -> bool:
        with self._refusing(step.changes):
            return await layout.write(step.rows, move)

    async def _shard_checkpoint(self, keys: Keys, start: Place, log: LogIdentity) -> Checkpoint:
        place = f"{start.topic}/{start.partition}"
        with self._refusing():
            while not (
                found := await CHECKPOINT.run(self._redis, [keys.checkpoints, keys.state], [place, _written(log)])
            ):
                await self.prepare()
        offset, written = found
        return Checkpoint(start._replace(offset=int(offset)), LogIdentity(*orjson.loads(written)))

    async def _is_prepared(self, keys: Keys) -> bool:
        with reaching_redis():
            return bool(await self._redis.hexists(keys.state, "epoch"))

    async def _sweep(self, keys: Keys) -> None:
        with reaching_redis():
            found = [key async for key in self._redis.scan_iter(match=f"{keys.root}*", count=SWEPT_AT_ONCE)]
        for first in range(0, len(found), SWEPT_AT_ONCE):
            if not await SWEEP.run(self._redis, [keys.state, *found[first : first + SWEPT_AT_ONCE]], []):
                return

    @contextmanager
    def _refusing(self, changes: Sequence[Change] = ()) -> Iterator[None]:
        try:
            with reaching_redis():
                yield
        except ResponseError as error:
            raise ChangeRefused(self._name, changes, str(error)) from error
        except Refused as error:
            raise self._refusal(error, changes) from error

    def _refusal(self, error: Refused, changes: Sequence[Change]) -> ChangeRefused:
        return ChangeRefused(self._name, [change for change in changes if error.concerns(change)], str(error))


def _written(log: LogIdentity) -> bytes:
    return orjson.dumps(list(log))
