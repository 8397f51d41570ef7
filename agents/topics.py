"""Which log a topic is: the cluster's id, the topic's id and its partitions, as the broker tells them.

aiokafka asks for metadata in versions that know no topic ids, so the request is spelled out here (Kafka protocol, Metadata v12; KIP-516).
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any
from uuid import UUID

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from projections.sinks.sink import LogIdentity

NO_ID = UUID(int=0)


class Uuid:
    """Sixteen bytes."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))

    @classmethod
    def repr(cls, value: UUID) -> str:
        return str(value)


class MetadataResponse_v12(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class MetadataRequest_v12(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = MetadataResponse_v12
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataRequest(Request[MetadataRequest_v12]):
    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics: list[Any] = [(NO_ID, topic, {}) for topic in topics]

    def build(self, request_struct_class: type[MetadataRequest_v12]) -> MetadataRequest_v12:
        return request_struct_class(self._topics, False, False, {})


@asynccontextmanager
async def open_client(bootstrap: str) -> AsyncIterator[Any]:
    """A bare client of the cluster. Raises KafkaError when no broker answers."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


async def answers(bootstrap: str) -> bool:
    """Whether a broker does."""
    try:
        async with open_client(bootstrap):
            return True
    except KafkaError:
        return False


async def log_identities(bootstrap: str, topics: Iterable[str]) -> dict[str, LogIdentity]:
    """The identity of each topic. Raises KafkaError, of a topic that is not there too."""
    async with open_client(bootstrap) as client:
        answer = await client.send(client.get_random_node(), MetadataRequest(topics))
    for topic in answer.to_object()["topics"]:
        if topic["error_code"]:
            error = for_code(topic["error_code"])
            hint = ": create it with python -m compose.provisioning" if error is UnknownTopicOrPartitionError else ""
            raise error(f"topic {topic['name']}{hint}")
    found = answer.to_object()
    return {
        topic["name"]: LogIdentity(found["cluster_id"], str(topic["topic_id"]), len(topic["partitions"]))
        for topic in found["topics"]
    }
