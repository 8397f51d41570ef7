"""A developer's own stack stays as it was: what a test run made there goes, known by the run's prefix."""

import asyncio

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from miniopy_async.api import Minio

from compose.connections import open_elasticsearch, open_redis
from compose.settings import Settings


async def sweep(settings: Settings) -> None:
    """Everything on every server whose name begins with the prefix of `settings`, which must not be empty."""
    assert settings.prefix
    await asyncio.gather(
        sweep_kafka(settings),
        sweep_postgres(settings),
        sweep_redis(settings),
        sweep_elasticsearch(settings),
        sweep_s3(settings),
    )


async def sweep_kafka(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        topics = [name for name in await admin.list_topics() if name.startswith(settings.prefix)]
        if topics:
            await admin.delete_topics(topics)
    finally:
        await admin.close()


async def sweep_postgres(settings: Settings) -> None:
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    try:
        for row in await connection.fetch(
            "select nspname from pg_namespace where starts_with(nspname, $1)", settings.prefix
        ):
            await connection.execute(f'drop schema "{row["nspname"]}" cascade')
    finally:
        await connection.close()


async def sweep_redis(settings: Settings) -> None:
    async with open_redis(settings) as redis:
        async for key in redis.scan_iter(match=f"*{settings.prefix}*", count=1_000):
            await redis.unlink(key)


async def sweep_elasticsearch(settings: Settings) -> None:
    async with open_elasticsearch(settings) as client:
        indices = await client.indices.get(index=f"{settings.prefix}*", expand_wildcards="all")
        for name in indices:
            await client.indices.delete(index=name)


async def sweep_s3(settings: Settings) -> None:
    endpoint = settings.s3_endpoint
    minio = Minio(
        f"{endpoint.host}:{endpoint.port}",
        settings.s3_access_key.get_secret_value(),
        settings.s3_secret_key.get_secret_value(),
        secure=endpoint.scheme == "https",
    )
    try:
        for bucket in await minio.list_buckets():
            if bucket.name.startswith(settings.prefix.replace("_", "-")):
                async for found in minio.list_objects(bucket.name, recursive=True):
                    await minio.remove_object(bucket.name, found.object_name or "")
                await minio.remove_bucket(bucket.name)
    finally:
        await minio.close_session()  # type: ignore[no-untyped-call]
