"""Provisioning on real servers: what is missing is created, what contradicts the declaration is refused in words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from compose.connections import open_redis
from compose.provisioning import Unprovisioned, check_redis, declared, provision, provision_tables, provision_topics
from compose.settings import Settings
from schemas.streams import Topic, streams
from tests.servers import Servers

VIEWS = Topic.model_validate(
    {"key": "view_id", "partitions": 3, "retention": "forever", "timestamps": "LogAppendTime", "once_within": "6h"}
)


@asynccontextmanager
async def topic_is_there(settings: Settings, partitions: int, configs: dict[str, str]) -> AsyncIterator[None]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(settings.named("views"), partitions, 1, topic_configs=configs)])
        yield
    finally:
        await admin.close()


async def test_what_is_missing_is_created_and_a_second_time_nothing_is(
    settings: Settings, kafka: None, postgres: None, redis: None, elasticsearch: None, s3: None
) -> None:
    count = len(streams().topics)
    assert f"{count} topics ({count} new)" in await provision(settings, streams())
    assert f"{count} topics (0 new)" in await provision(settings, streams())


async def test_two_that_provision_at_once_do_not_disturb_each_other(
    settings: Settings, kafka: None, postgres: None
) -> None:
    both = [provision_topics(settings, {"views": VIEWS}), provision_topics(settings, {"views": VIEWS})]
    await asyncio.gather(*both, provision_tables(settings), provision_tables(settings))


async def test_a_topic_is_as_declared_stamped_by_the_broker_and_kept_for_ever(settings: Settings, kafka: None) -> None:
    await provision_topics(settings, {"views": VIEWS})
    assert await provision_topics(settings, {"views": VIEWS}) == "1 topics (0 new)"


async def test_another_partition_count_is_refused_since_it_decides_where_a_key_lies(
    settings: Settings, kafka: None
) -> None:
    async with topic_is_there(settings, 5, declared(VIEWS)):
        with pytest.raises(Unprovisioned, match=r"views has 5 partitions and streams\.yaml declares 3"):
            await provision_topics(settings, {"views": VIEWS})


@pytest.mark.parametrize(
    ("name", "value"),
    [("message.timestamp.type", "CreateTime"), ("retention.ms", "604800000"), ("cleanup.policy", "compact")],
)
async def test_a_topic_that_would_lose_or_misdate_events_is_refused(
    settings: Settings, kafka: None, name: str, value: str
) -> None:
    async with topic_is_there(settings, 3, {**declared(VIEWS), name: value}):
        with pytest.raises(Unprovisioned, match=f"{name}={value} and streams.yaml asks for {declared(VIEWS)[name]}"):
            await provision_topics(settings, {"views": VIEWS})


async def test_every_contradiction_is_told_at_once(settings: Settings, kafka: None) -> None:
    async with topic_is_there(settings, 5, {"retention.ms": "1000"}):
        with pytest.raises(Unprovisioned, match=r"(?s)5 partitions.*timestamp.*retention\.ms"):
            await provision_topics(settings, {"views": VIEWS})


async def test_a_redis_that_may_evict_is_refused() -> None:
    """One of its own: everybody else's is never one that may."""
    servers = Servers("local")
    try:
        await asyncio.to_thread(servers.need, {"redis"})
        settings = servers.settings(servers.prefix)
        async with open_redis(settings) as client:
            await client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(Unprovisioned, match="maxmemory-policy noeviction"):
            await check_redis(settings)
    finally:
        await asyncio.to_thread(servers.close, keep_logs=False)


async def test_a_server_that_is_not_there_is_named(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(Unprovisioned, match=r"Kafka at 127\.0\.0\.1:1 does not"):
        await provision_topics(nowhere, {"views": VIEWS})


async def test_tables_lie_in_the_schema_of_the_prefix_alone(settings: Settings, postgres: None) -> None:
    await provision_tables(settings)
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    try:
        rows = await connection.fetch("select schemaname from pg_tables where tablename = 'viewers'")
    finally:
        await connection.close()
    assert settings.postgres_schema in {row["schemaname"] for row in rows}
    assert "public" not in {row["schemaname"] for row in rows}
