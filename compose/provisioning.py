"""Creates what is missing on the servers, as `streams.yaml` and the settings have it; refuses what contradicts them.

`python -m compose.provisioning` may run any number of times, and by several at once.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from elasticsearch import ApiError, TransportError
from redis.exceptions import RedisError

from compose.connections import open_elasticsearch, open_redis
from compose.settings import Settings, WrongSetting, settings, without_password
from compose.storage import StorageUnavailable, open_storage
from schemas.streams import Streams, Topic, WrongStreams, streams

MIGRATIONS = Path(__file__).parent / "migrations"
ADMIN_SECONDS = 15
BROKERS_CHOICE = -1  # of the replication factor


class Unprovisioned(Exception):
    """A server lacks what the system needs and it cannot be created; the message says what, and what to do."""


async def provision(settings: Settings, streams: Streams) -> str:
    """Everything on all servers at once; returns what was done in a line. Raises Unprovisioned with every refusal."""
    done = await asyncio.gather(
        provision_topics(settings, streams.topics),
        provision_tables(settings),
        provision_bucket(settings),
        check_redis(settings),
        check_elasticsearch(settings),
        return_exceptions=True,
    )
    bugs = [
        outcome for outcome in done if isinstance(outcome, BaseException) and not isinstance(outcome, Unprovisioned)
    ]
    if bugs:
        raise bugs[0]
    if refusals := [str(outcome) for outcome in done if isinstance(outcome, Unprovisioned)]:
        raise Unprovisioned("; ".join(refusals))
    return ", ".join(outcome for outcome in done if isinstance(outcome, str) and outcome)


async def provision_topics(settings: Settings, topics: Mapping[str, Topic]) -> str:
    """Creates the topics that are missing. Raises Unprovisioned when one that is there is not as declared."""
    names = {settings.named(name): topic for name, topic in topics.items()}
    async with open_admin(settings) as admin:
        missing = [name for name, partitions in (await partition_counts(admin, names)).items() if not partitions]
        await create_topics(admin, {name: names[name] for name in missing})
        counts, configs = await known_counts(admin, names), await topic_configs(admin, names)
    if wrong := [
        word for name, topic in names.items() for word in contradictions(name, topic, counts[name], configs[name])
    ]:
        raise Unprovisioned("; ".join(wrong))
    return f"{len(names)} topics ({len(missing)} new)"


def contradictions(name: str, topic: Topic, partitions: int, config: Mapping[str, str]) -> list[str]:
    """What a running topic has otherwise than `streams.yaml`, each with the way out."""
    wrong = []
    if partitions != topic.partitions:
        wrong.append(
            f"topic {name} has {partitions} partitions and streams.yaml declares {topic.partitions}: "
            "a count is frozen, since it decides where a key lies; set streams.yaml back, or copy to a new topic"
        )
    for key, value in declared(topic).items():
        if config.get(key) != value:
            wrong.append(
                f"topic {name} has {key}={config.get(key)} and streams.yaml asks for {value}: "
                f"set it with kafka-configs, or with `--alter --add-config {key}={value}` of any Kafka tool"
            )
    return wrong


def declared(topic: Topic) -> dict[str, str]:
    """A topic's paragraph in Kafka's words."""
    return {
        "message.timestamp.type": topic.timestamps,
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
    }


@asynccontextmanager
async def open_admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=ADMIN_SECONDS * 1_000)
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise Unprovisioned(f"Kafka at {settings.kafka_bootstrap} does not do its part: {error}") from error
    finally:
        await admin.close()


async def create_topics(admin: AIOKafkaAdminClient, topics: Mapping[str, Topic]) -> None:
    """One that another has just created is as good as ours."""
    if not topics:
        return
    wanted = [
        NewTopic(name, topic.partitions, BROKERS_CHOICE, replica_assignments={}, topic_configs=declared(topic))
        for name, topic in topics.items()
    ]
    answer = (await admin.create_topics(wanted)).to_object()
    for topic in answer["topic_errors"]:
        if topic["error_code"] not in (0, TopicAlreadyExistsError.errno):
            raise for_code(topic["error_code"])(f"{topic['topic']}: {topic['error_message']}")


async def partition_counts(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """0 for a topic that is not there."""
    found = await admin.describe_topics(list(names))
    for topic in found:
        if topic["error_code"] not in (0, UnknownTopicOrPartitionError.errno):
            raise for_code(topic["error_code"])(topic["topic"])
    return {topic["topic"]: len(topic["partitions"]) for topic in found}


async def known_counts(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Of topics that were created, which the broker that we ask may learn a moment later. Raises Unprovisioned."""
    wanted = list(names)
    try:
        async with asyncio.timeout(ADMIN_SECONDS):
            counts = await partition_counts(admin, wanted)
            while not all(counts.values()):
                await asyncio.sleep(0.05)
                counts = await partition_counts(admin, wanted)
    except TimeoutError:
        raise Unprovisioned(f"Kafka created topics that it does not show after {ADMIN_SECONDS} s: ask again") from None
    return counts


async def topic_configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    resources: Sequence[Any] = [resource for answer in answers for resource in answer.to_object()["resources"]]
    return {
        resource["resource_name"]: {
            entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]
        }
        for resource in resources
    }


async def provision_tables(settings: Settings) -> str:
    """Runs the migrations that have not run yet, in the schema of this system, which is created."""
    dsn = settings.postgres_dsn.get_secret_value()
    schema = settings.postgres_schema
    try:
        connection = await asyncpg.connect(dsn, timeout=ADMIN_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError) as error:
        raise Unprovisioned(f"Postgres at {without_password(dsn)} does not let us in: {error}") from error
    try:
        encrypted = await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        await connection.execute(f'create schema if not exists "{schema}"')
    except asyncpg.UniqueViolationError:
        pass  # created by another in the same moment
    finally:
        await connection.close()
    output = await migrate(dsn, schema, encrypted=bool(encrypted))
    return f"{len(list(MIGRATIONS.glob('*.sql')))} migrations ({output.count('Applied:')} new)"


async def migrate(dsn: str, schema: str, *, encrypted: bool) -> str:
    """What dbmate said. Raises Unprovisioned with its words when a migration fails."""
    parts = urlsplit(dsn)
    # asyncpg encrypts where the server can; dbmate has to be told which it is.
    query = {"sslmode": "require" if encrypted else "disable", **dict(parse_qsl(parts.query)), "search_path": schema}
    dbmate = shutil.which("dbmate", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}")
    if dbmate is None:
        raise Unprovisioned("`dbmate` is not on this machine: it comes with requirements.txt")
    process = await asyncio.create_subprocess_exec(
        dbmate,
        "--migrations-dir",
        str(MIGRATIONS),
        "--no-dump-schema",
        "--migration-lock",
        "migrate",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "DATABASE_URL": parts._replace(query=urlencode(query)).geturl()},
    )
    output = (await process.communicate())[0].decode(errors="replace").strip()
    if process.returncode:
        raise Unprovisioned(f"a migration failed in schema {schema}: {output}")
    return output


async def provision_bucket(settings: Settings) -> str:
    try:
        async with open_storage(settings) as storage:
            await storage.ensure_bucket()
    except StorageUnavailable as error:
        raise Unprovisioned(f"S3 at {settings.s3_endpoint} does not do its part: {error}") from error
    return f"bucket {settings.bucket}"


async def check_redis(settings: Settings) -> None:
    """Leaderboards are state, not a cache: a Redis that may evict them counts wrong without a word."""
    place = without_password(settings.redis_url)
    try:
        async with open_redis(settings) as redis:
            memory = await redis.info("memory")
    except (RedisError, OSError) as error:
        raise Unprovisioned(f"Redis at {place} does not answer: {error}") from error
    if memory["maxmemory_policy"] != "noeviction":
        raise Unprovisioned(
            f"Redis at {place} evicts keys (maxmemory-policy {memory['maxmemory_policy']}): "
            "set `maxmemory-policy noeviction`, or give this system a Redis of its own"
        )


async def check_elasticsearch(settings: Settings) -> None:
    place = without_password(settings.elasticsearch_url)
    try:
        async with open_elasticsearch(settings) as client:
            health = await client.cluster.health(wait_for_status="yellow", timeout=f"{ADMIN_SECONDS // 2}s")
    except (ApiError, TransportError) as error:
        raise Unprovisioned(f"Elasticsearch at {place} does not answer: {error}") from error
    if health["status"] == "red":
        raise Unprovisioned(f"Elasticsearch at {place} has shards that no node holds (status red): look into its log")


def main() -> None:
    try:
        print(asyncio.run(provision(settings(), streams())))
    except (Unprovisioned, WrongSetting, WrongStreams) as refusal:
        sys.exit(str(refusal))


if __name__ == "__main__":
    main()
