"""Partitions of one version folded from their checkpoints to the end of the log, outside of any group.

`python -m agents.refolding NAME VERSION RATE TOPIC/PARTITION…` is one process of a rebuild. It ends when its standard input does: whoever
started it is gone, or wants it to stop. Killed, it is started again, and goes on from the checkpoints.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.aside import take_turns
from agents.blocks import Block
from agents.decisions import decisions_of
from agents.fetching import block_consumer, fetched
from agents.folding import Folding
from agents.gathering import MOST_RECORDS, Gathering
from agents.handover import Batch, Log, Partition, contradiction
from agents.known_poison import KnownPoison, NewPoison
from agents.limits import Halted
from agents.parking import NotYet
from agents.reader import back_off_seconds
from agents.registry import NotNow, Registry
from agents.seen import seen_ids
from agents.stores import Stores, folded_as, open_stores
from agents.topics import log_identities
from compose.garbage import collect_seldom
from compose.settings import Settings, settings
from compose.telemetry import start_logging
from projections.queries.versions import Version
from projections.sinks.sink import CheckpointMoved, StoreUnavailable
from schemas.records import Record
from schemas.streams import streams

SIDE_BY_SIDE = 6  # partitions, of whose views many add to the same films and hours
FETCH_BYTES = 1024 * 1024  # of a partition: what is decoded, judged and added up at once
POLL_MS = 200
POSTGRES_CONNECTIONS = 6
WAIT_SECONDS = 0.5
AWAY, STOPPED = 1, 2  # exit statuses: start it again; somebody has to do something
AUTOGROUP_TRIES, AUTOGROUP_SECONDS = 50, 0.11
NEARLY = 1_000  # records left, of which a worker makes one batch

Ends = Mapping[Partition, int]


class Refolding:
    """Folds `partitions` of one version. `rate` is the most records a second, 0 for as many as can be."""

    def __init__(
        self, settings: Settings, stores: Stores, version: Version, partitions: Sequence[Partition], *, rate: int = 0
    ) -> None:
        self._settings = settings
        self._version = version
        self._partitions = partitions
        self._rate = rate
        # Who is to be slow is to be seen moving, too.
        self._sink = Gathering(stores.sink(version), most_records=1 if rate else MOST_RECORDS)
        projection = folded_as(version)
        self._folding = Folding(
            projection,
            self._sink,
            KnownPoison(stores, projection),
            seen_ids(settings, streams()),
            {name: topic.partitions for name, topic in streams().topics.items()},
            decisions_of(settings, streams()),
        )
        self._side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)
        self._positions: dict[Partition, int] = {}
        self._stopping = False
        self._began, self._folded = time.monotonic(), 0

    def stop(self) -> None:
        """`run` ends after the batches that are under way."""
        self._stopping = True

    async def run(self, ends: Ends | None = None) -> None:
        """Fold to `ends`, or to where the log ends by then, but for the last few records.

        Raises NewPoison, NotNow when a checkpoint speaks of another log, KafkaError.
        """
        consumer = block_consumer(self._settings, fetch_bytes=FETCH_BYTES)
        await consumer.start()
        try:
            consumer.assign([self._at(partition) for partition in self._partitions])
            # A few to their ends before others are begun: whoever goes on after a kill reads again what only those have to know.
            consumer.pause(*consumer.assignment())
            await self._each(self._partitions, lambda partition: self._seek(consumer, partition))
            nearly = 0
            while not self._stopping and (left := await self._left(consumer, ends, nearly)):
                await self._each(left, lambda partition: self._fold_partition(consumer, partition, left[partition]))
                await self._each(left, lambda partition: self._write(consumer, partition))
                nearly = NEARLY
        finally:
            await consumer.stop()

    async def _left(self, consumer: Any, ends: Ends | None, nearly: int) -> Ends:
        """The ends of the partitions that have not come to them; where the log goes on, of those with more than `nearly` records left."""
        if ends is not None:
            return {partition: end for partition, end in ends.items() if self._positions[partition] < end}
        by_now = await consumer.end_offsets([self._at(partition) for partition in self._partitions])
        found = {partition: by_now[self._at(partition)] for partition in self._partitions}
        return {partition: end for partition, end in found.items() if end - self._positions[partition] > nearly}

    async def _each(
        self, partitions: Collection[Partition], step: Callable[[Partition], Coroutine[Any, Any, None]]
    ) -> None:
        """The step of each, side by side. Raises the first error, after the batches that are under way."""

        async def one(partition: Partition) -> None:
            try:
                await step(partition)
            except BaseException:
                self.stop()
                raise

        for error in await asyncio.gather(*map(one, partitions), return_exceptions=True):
            if error is not None:
                raise error

    async def _fold_partition(self, consumer: Any, partition: Partition, end: int) -> None:
        """To `end` exactly."""
        while not self._stopping and self._positions[partition] < end:
            async with self._side_by_side:
                try:
                    while not self._stopping and self._positions[partition] < end:
                        await self._fold_some(consumer, partition, end)
                    return
                except NotYet:
                    # Another partition, perhaps of another process, has to come further; this one may have come a part of the way.
                    await self._seek(consumer, partition)
            await asyncio.sleep(WAIT_SECONDS)

    async def _write(self, consumer: Any, partition: Partition) -> None:
        """What is gathered of it; where something was lost, its position is the store's again."""
        await self._insist(consumer, partition, partial(self._sink.write, *partition))

    async def _fold_some(self, consumer: Any, partition: Partition, end: int) -> None:
        """What has been fetched of it by now, but nothing from `end` on."""
        at = self._at(partition)
        # Not fetched ahead: while this one is folded, others are fetched.
        consumer.resume(at)
        block = (await fetched(consumer, [at], timeout_ms=POLL_MS)).get(at)
        consumer.pause(at)
        position = await consumer.position(at)
        if position > end:
            position, block = end, block and block.before(end)
            consumer.seek(at, end)
        if position > self._positions[partition]:
            await self._fold_block(consumer, partition, block, position)

    async def _fold_block(self, consumer: Any, partition: Partition, block: Block | None, position: int) -> None:
        records: Sequence[Record] = block if block is not None else []
        most = self._rate or max(1, len(records))
        for first in range(0, max(1, len(records)), most):
            following = records[first + most].offset if first + most < len(records) else position
            batch = Batch(0, partition, self._positions[partition], following, records[first : first + most])
            if not await self._insist(consumer, partition, partial(self._folding.fold, batch)):
                return
            self._positions[partition] = following
            self._folded += len(batch.records)
            if self._rate:
                await asyncio.sleep(max(0.0, self._folded / self._rate - (time.monotonic() - self._began)))

    async def _insist(self, consumer: Any, partition: Partition, step: Callable[[], Awaitable[None]]) -> bool:
        """Take it, however long a store is down; False when the partition is now read from elsewhere, or the time has come to stop.

        Raises what `step` raises of other kinds.
        """
        attempt = 0
        while True:
            try:
                await step()
            except StoreUnavailable:
                if self._stopping:
                    return False
                attempt += 1
                await asyncio.sleep(back_off_seconds(attempt))
            except CheckpointMoved:
                await self._seek(consumer, partition)
                return False
            else:
                return True

    async def _seek(self, consumer: Any, partition: Partition) -> None:
        """To the checkpoint, if it speaks of this log."""
        at, attempt = self._at(partition), 0
        identity = (await log_identities(self._settings.kafka_bootstrap, [at.topic]))[at.topic]
        while True:
            try:
                checkpoint = await self._sink.checkpoint(partition.topic, partition.number, identity)
                break
            except StoreUnavailable:
                if self._stopping:
                    return
                attempt += 1
                await asyncio.sleep(back_off_seconds(attempt))
        starts, ends = await consumer.beginning_offsets([at]), await consumer.end_offsets([at])
        if why := contradiction(self._version.projection, partition, checkpoint, Log(identity, starts[at], ends[at])):
            raise NotNow(why)
        consumer.seek(at, checkpoint.next_offset)
        self._positions[partition] = checkpoint.next_offset

    def _at(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.named(partition.topic), partition.number)


async def refold(name: str, number: int, rate: int, partitions: Sequence[Partition]) -> None:
    """One process of a rebuild, from its start to its end."""
    async with open_stores(settings(), connections=POSTGRES_CONNECTIONS) as stores:
        version = next(v for v in (await Registry(stores.pool).versions()).known(name) if v.number == number)
        refolding = Refolding(settings(), stores, version, partitions, rate=rate)
        waiting = asyncio.create_task(_until_input_ends(refolding))
        try:
            await refolding.run()
        finally:
            waiting.cancel()


def rest() -> None:
    """Give this process what others leave: who waits for an answer comes first, at once (`man 7 sched`, SCHED_IDLE).

    Where Linux shares the processors among sessions first (*autogroup*, there too) that speaks only to its own session: it takes one of
    its own, and the nicest share.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        os.setsid()
        for _ in range(AUTOGROUP_TRIES):
            try:
                Path("/proc/self/autogroup").write_text("19")
                break
            except BlockingIOError:  # one process of the machine every tenth of a second may
                time.sleep(AUTOGROUP_SECONDS)


async def _until_input_ends(refolding: Refolding) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    refolding.stop()


def main() -> int:
    """The exit status: 0 when it is done or was told to stop, else one with a sentence on standard output."""
    name, number, rate, *places = sys.argv[1:]
    rest()
    collect_seldom()
    take_turns()
    start_logging(settings().model_copy(update={"log_level": "ERROR"}), "rebuild")
    partitions = [Partition(topic, int(partition)) for topic, partition in (place.split("/") for place in places)]
    try:
        uvloop.install()
        asyncio.run(refold(name, int(number), int(rate), partitions))
    except (NewPoison, NotNow, Halted) as stopped:
        print(stopped)
        return STOPPED
    except (KafkaError, StoreUnavailable) as error:
        print(f"a server is away: {error}")
        return AWAY
    return 0


if __name__ == "__main__":
    sys.exit(main())
