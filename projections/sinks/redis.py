"""The sink in Redis: scripts that write state and checkpoint together or neither."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import itemgetter

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from projections.changes import Change, singly
from projections.projection import Projection
from projections.sinks.redis_board import Board
from projections.sinks.redis_keys import channel, shard_of, shards_of
from projections.sinks.redis_layout import Limits, Move, Refused, Rows
from projections.sinks.redis_registers import Registers
from projections.sinks.redis_scripts import reaching_redis
from projections.sinks.redis_shard import Shard
from projections.sinks.sink import ChangeRefused, Checkpoint, CheckpointMoved, LogIdentity, Step, StoreUnavailable
from projections.sinks.together import Batch, Together, joined
from schemas.log import Place

LAYOUTS: dict[str, type[Board] | type[Registers]] = {"leaderboard": Board, "resume": Registers}
DEFAULT_LIMITS = Limits()
MOST_RECORDS = 500_000  # of several partitions in a step of many calls


class RedisSink:
    """A projection's state in Redis, in `shards` that each hold their own checkpoints; a checkpoint is the least of its shards'.

    State and checkpoints lie in the same database and are lost or restored together: an emptied Redis is folded from the start again and
    one restored from an older snapshot from its older checkpoint, both exactly. Where only a part is lost, or
    a key of the board is of a wrong type, that is StoreUnavailable, in words, until someone mends it: no event is to blame, none is parked.
    """

    def __init__(
        self, redis: Redis, projection: Projection, prefix: str, *, shards: int = 1, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._name = projection.full_name
        self._channel = channel(prefix)
        layout = LAYOUTS[projection.name]
        self._shards = [
            Shard(redis, keys, layout(redis, keys, limits), limits.rows)
            for keys in shards_of(prefix, projection.name, projection.version, shards)
        ]
        self.needs_offsets = shards > 1
        self._together = Together(self._apply, limits.rows)
        self._long_ones = Together(self._apply, MOST_RECORDS)

    async def prepare(self) -> None:
        with self._refusing():
            for shard in self._shards:
                await shard.prepare()

    async def checkpoint(self, topic: str, partition: int, log: LogIdentity) -> Checkpoint:
        """How far every shard is; on the first call, and when Redis was emptied, that is offset 0 of `log`.

        A batch that a worker began to write and did not finish is finished here.
        """
        with self._refusing():
            found = [await shard.checkpoint(f"{topic}/{partition}", _written(log)) for shard in self._shards]
        checkpoints = [
            Checkpoint(Place(topic, partition, next_offset), LogIdentity(*orjson.loads(written)))
            for next_offset, written in found
        ]
        of_another_log = [checkpoint for checkpoint in checkpoints if checkpoint.log != log]
        return min(of_another_log or checkpoints, key=lambda checkpoint: checkpoint.next_offset)

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        """One shard takes the batches of other partitions that have come meanwhile in the same call. Of several shards, one that is ahead,
        because a worker died between two, takes only what it has not yet: for that are the `offsets`."""
        batch = Batch(changes, expected, next_offset, step)
        if len(self._shards) > 1:
            await self._apply_to_shards(changes, expected, next_offset, offsets, step)
        elif batch.reach > self._together.most_records:
            # Many calls, which short batches do not wait for. Of several at once whoever asks something would wait for all.
            await self._long_ones.join(batch)
        else:
            await self._together.join(batch)

    async def _apply(self, batches: Sequence[Batch]) -> None:
        """All of them or none, into the one shard."""
        changes, (shard,) = joined([batch.changes for batch in batches]), self._shards
        rows: Rows = {}
        with self._refusing(changes):
            for change in changes:
                shard.layout.merge(rows, change)
            if not await shard.apply(
                rows, [self._move(batch.expected, batch.next_offset, batch.step) for batch in batches]
            ):
                raise CheckpointMoved(self._name, batches[0].expected)

    def _move(self, start: Place, next_offset: int, step: str | None, *, is_told: bool = True) -> Move:
        place = f"{start.topic}/{start.partition}"
        message = f"{self._name} {start.topic} {start.partition} {next_offset}" if is_told else ""
        return Move(place, str(start.offset), str(next_offset), self._channel, message, step or "")

    async def _apply_to_shards(
        self,
        changes: Sequence[Change],
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None,
        step: str | None,
    ) -> None:
        place = f"{expected.topic}/{expected.partition}"
        starts = await self._starts(place, expected)
        if offsets is None and any(expected.offset < start < next_offset for start in starts):
            raise ValueError(f"{self._name}: a shard stands inside the batch after {expected}: offsets are needed")
        batch = self._merged(changes, offsets or [expected.offset] * len(changes), starts)
        behind = [number for number, start in enumerate(starts) if start < next_offset]
        for number in behind:
            # Whoever waits for the checkpoint is told when the last shard has moved.
            start = expected._replace(offset=starts[number])
            move = self._move(start, next_offset, step, is_told=number == behind[-1])
            with self._refusing(changes):
                moved = await self._shards[number].apply(batch[number], [move])
            if not moved:
                raise CheckpointMoved(self._name, expected)

    def condensed(self, changes: Sequence[Change]) -> Sequence[Change]:
        layout = self._shards[0].layout
        return [layout.condensed(change) for change in changes]

    async def newest_step(self, topic: str, partition: int) -> Step:
        with self._refusing():
            return min([await shard.newest_step(f"{topic}/{partition}") for shard in self._shards], key=itemgetter(0))

    async def tick(self, now: datetime) -> None:
        """Move the windows' edges to `now`, never backwards; several workers may tick at once.

        The first tick belongs before the first batch: until then every window holds everything, bucket by bucket.
        """
        with self._refusing():
            for shard in self._shards:
                await shard.layout.tick(now)

    async def drop(self) -> None:
        with self._refusing():
            for shard in self._shards:
                await shard.drop()

    def _merged(self, changes: Sequence[Change], offsets: Sequence[int], starts: Sequence[int]) -> list[Rows]:
        """For each shard the rows that it has not yet."""
        batch: list[Rows] = [{} for _ in self._shards]
        with self._refusing(changes):
            for change, offset in zip(changes, offsets, strict=True):
                for one in singly([change]):
                    number = shard_of(self._shards[0].layout.identity(one), len(self._shards))
                    if offset >= starts[number]:
                        self._shards[number].layout.merge(batch[number], one)
        return batch

    async def _starts(self, place: str, expected: Place) -> list[int]:
        """Where each shard stands. Raises CheckpointMoved unless the least is `expected`."""
        with self._refusing():
            starts = [await shard.next_offset(place) for shard in self._shards]
        known = [start for start in starts if start is not None]
        if len(known) < len(starts) or min(known) != expected.offset:
            raise CheckpointMoved(self._name, expected)
        return known

    @contextmanager
    def _refusing(self, changes: Sequence[Change] = ()) -> Iterator[None]:
        try:
            with reaching_redis():
                yield
        except Refused as error:
            concerned = [change for change in changes if error.concerns(change)]
            raise ChangeRefused(self._name, concerned, str(error)) from error
        except ResponseError as error:
            # No change is to blame: a key of the state is of a wrong type, or a part of it is gone. The partition waits until it is mended.
            raise StoreUnavailable("redis", f"{self._name}: {error}") from error


def _written(log: LogIdentity) -> str:
    return orjson.dumps(list(log)).decode()
