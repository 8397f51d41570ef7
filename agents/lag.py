"""How far behind each projection is: its checkpoints against the true end of the log."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis

from compose.settings import Settings
from projections.queries.checkpoints import checkpoints_of
from projections.queries.versions import Versions, read_versions
from schemas.streams import Streams


class Lag(NamedTuple):
    """One partition of one projection. `end_offset` is what a reader of committed records can reach."""

    projection: str
    topic: str
    partition: int
    next_offset: int
    end_offset: int

    @property
    def lag_events(self) -> int:
        return max(0, self.end_offset - self.next_offset)


async def lags(
    settings: Settings, streams: Streams, pool: Any, redis: Redis, elasticsearch: AsyncElasticsearch
) -> Sequence[Lag]:
    """Every partition of every projection, in the version that answers.

    Raises StoreUnavailable or KafkaError when a server cannot be asked.
    """
    ends = await _ends(settings, streams)
    versions = Versions(await read_versions(pool))
    found = []
    for name, spec in streams.projections.items():
        checkpoints = checkpoints_of(versions.active(name), settings.prefix, pool, redis, elasticsearch)
        for topic in spec.topics:
            for partition in range(streams.topics[topic].partitions):
                next_offset = await checkpoints.next_offset(topic, partition)
                found.append(Lag(name, topic, partition, next_offset, ends[topic, partition]))
    return found


async def _ends(settings: Settings, streams: Streams) -> dict[tuple[str, int], int]:
    wanted = {
        TopicPartition(settings.named(topic), partition): (topic, partition)
        for topic, spec in streams.topics.items()
        for partition in range(spec.partitions)
    }
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, isolation_level="read_committed")
    try:
        await consumer.start()
        return {wanted[at]: end for at, end in (await consumer.end_offsets(list(wanted))).items()}
    finally:
        await consumer.stop()
