"""Consumers that are not ours in a group of ours: they are given partitions that nobody of us reads then."""

from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.structs import OffsetAndMetadata


class Stranger(NamedTuple):
    """A member of the group that is none of our workers, and what it was given."""

    client_id: str
    host: str
    given: tuple[TopicPartition, ...]


class Found(NamedTuple):
    """Strangers in the group, and offsets committed to it, which no worker does."""

    members: list[Stranger]
    committed: dict[TopicPartition, OffsetAndMetadata]


async def strangers_in(bootstrap: str, group: str) -> Found:
    """Who is no worker of ours is known by its client id. Raises KafkaError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        (described,) = await admin.describe_consumer_groups([group])
        committed = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    members = [
        Stranger(member["client_id"], member["client_host"].lstrip("/"), _given(member["member_assignment"]))
        for one in described.to_object()["groups"]
        for member in one["members"]
        if member["client_id"] != group and not member["client_id"].startswith(f"{group}.")
    ]
    return Found(members, {at: offset for at, offset in committed.items() if offset.offset >= 0})


def _given(assignment: bytes) -> tuple[TopicPartition, ...]:
    """Nothing while the group is being dealt out."""
    if not assignment:
        return ()
    dealt = ConsumerProtocolMemberAssignment.decode(assignment).assignment
    return tuple(TopicPartition(topic, partition) for topic, partitions in dealt for partition in partitions)
