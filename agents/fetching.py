"""A consumer that hands out all that it has fetched of a partition as one `Block`, for who reads stretches of the log.

aiokafka makes an object of each record as it is asked for. Where that happens are two names of its fetcher, which are taken here: what
another consumer of this process hands out stays as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from agents.blocks import Block, block_of, sections
from compose.settings import Settings

FETCH_BYTES = 4 * 2**20  # of a partition
FETCH_WAIT_MS = 20  # the default of 500 stalls a busy partition behind fetches for drained ones


def as_blocks(key: bytes) -> bytes:
    """Given to a consumer as `key_deserializer`, it says that blocks are wanted; there is nothing to deserialize."""
    raise NotImplementedError


class _Kept:
    """The batches of a fetch, and the bytes that they lie in."""

    def __init__(self, message_set: bytes) -> None:
        self.message_set = message_set
        batches = MemoryRecords(message_set)
        self.has_next = batches.has_next
        self.next_batch = batches.next_batch
        self.size_in_bytes = batches.size_in_bytes


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        if self._key_deserializer is not as_blocks:
            yield from super()._unpack_records()
            return
        from_offset: int = self.next_fetch_offset
        found = []
        for section in sections(self._records.message_set):
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            self.next_fetch_offset = batch.next_offset
            if self._is_read(batch):
                found.append(section)
        if found and len(block := block_of(self._tp.partition, found, from_offset)):
            yield block

    def _is_read(self, batch: Any) -> bool:
        """Whether its records are anybody's: they are not marks, and their transaction was not aborted."""
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return False
        return not batch.is_control_batch


fetcher.MemoryRecords = _Kept
fetcher.PartitionRecords = _PartitionRecords


def block_consumer(settings: Settings, *, fetch_bytes: int = FETCH_BYTES) -> Any:
    """A consumer outside of any group, of committed records, to be assigned and sought; `fetched` asks it.

    `fetch_bytes` is about how much a fetch brings of a partition.
    """
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        key_deserializer=as_blocks,
        max_partition_fetch_bytes=fetch_bytes,
    )


async def fetched(
    consumer: Any, partitions: Sequence[TopicPartition], *, timeout_ms: int
) -> Mapping[TopicPartition, Block]:
    """What it has fetched of each of `partitions`; nothing of those of which nothing came in time."""
    blocks = await consumer.getmany(*partitions, timeout_ms=timeout_ms)
    return {partition: block for partition, [block] in blocks.items()}
