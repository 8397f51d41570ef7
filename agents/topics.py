"""Which log a topic is: the cluster's id, the topic's id and its partitions, as the broker tells them."""

from collections.abc import Iterable

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code

from agents.requests import MetadataRequest, open_client
from projections.sinks.sink import LogIdentity


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
