"""Which producer holds a transaction open on a partition, as the broker tells it."""

from datetime import datetime
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from agents.requests import DescribeProducersRequest, ListTransactionsRequest, open_client
from schemas.log import moment_of


class OpenTransaction(NamedTuple):
    """A transaction that nobody has ended. `transactional_id` is None where no broker tells it, `wrote_at` when it wrote last."""

    producer_id: int
    start_offset: int
    wrote_at: datetime
    transactional_id: str | None


async def open_transaction(bootstrap: str, at: TopicPartition) -> OpenTransaction | None:
    """The one that began first on the partition. Raises KafkaError."""
    async with open_client(bootstrap) as client:
        await client.set_topics([at.topic])
        leader = client.cluster.leader_for_partition(at)
        if leader is None or leader < 0:
            return None
        told = (await client.send(leader, DescribeProducersRequest(at))).to_object()
        producers = [
            producer
            for topic in told["topics"]
            for partition in topic["partitions"]
            for producer in partition["producers"]
            if producer["transaction_start_offset"] >= 0
        ]
        if not producers:
            return None
        first = min(producers, key=lambda producer: int(producer["transaction_start_offset"]))
        return OpenTransaction(
            first["producer_id"],
            first["transaction_start_offset"],
            moment_of(first["last_timestamp"]),
            await _transactional_id(client, first["producer_id"]),
        )


async def sentence(
    bootstrap: str, at: TopicPartition, offset: int, *, behind: int, since: datetime | None = None
) -> str:
    """Which transaction holds up the partition at `offset`, and the way out. Raises KafkaError."""
    where = f"{at.topic}/{at.partition} at {offset:,}"
    transaction = await open_transaction(bootstrap, at)
    if transaction is None:
        seen = f" since {since:%F %T} UTC" if since else ""
        return f"an open transaction holds up {where}{seen}: {behind:,} records lie behind it"
    name = f" ({transaction.transactional_id})" if transaction.transactional_id else ""
    return (
        f"a transaction of producer {transaction.producer_id}{name}, which wrote last at {transaction.wrote_at:%F %T} UTC, "
        f"holds up {where}: "
        f"{behind:,} records lie behind it; end its producer and wait for its time-out, or `kafka-transactions.sh abort "
        f"--topic {at.topic} --partition {at.partition} --start-offset {transaction.start_offset}`"
    )


async def _transactional_id(client: Any, producer_id: int) -> str | None:
    """Only the broker that coordinates it knows."""
    for broker in client.cluster.brokers():
        told = (await client.send(broker.nodeId, ListTransactionsRequest(producer_id))).to_object()
        for transaction in told["transactions"]:
            found: str = transaction["transactional_id"]
            return found
    return None
