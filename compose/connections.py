"""Opens Postgres, Redis and Elasticsearch. Opening connects to nothing, so a server that is down stops no start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from compose.settings import Settings

CONNECT_SECONDS = 3.0
COMMAND_SECONDS = 30.0
REDIS_SECONDS = 5.0
ELASTICSEARCH_SECONDS = 10.0


async def _teach_json(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        # A jsonb value in binary begins with its format version, 1.
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda raw: orjson.loads(raw[1:]),
    )


async def _as_it_is(connection: Any) -> None:
    """Nothing is left behind on a connection: settings are a transaction's own, who listens or locks undoes it. asyncpg's own reset would
    be one more round trip a query."""


@asynccontextmanager
async def open_postgres(settings: Settings, *, connections: int = 8) -> AsyncIterator[Any]:
    """A pool whose connections look for tables in this system's schema alone, and speak JSON."""
    pool = asyncpg.create_pool(
        settings.postgres_dsn.get_secret_value(),
        min_size=0,
        max_size=connections,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        init=_teach_json,
        reset=_as_it_is,
        server_settings={
            "search_path": settings.postgres_schema,
            "timezone": "UTC",
            "application_name": "entertainmenttime",
        },
    )
    async with pool:
        yield pool


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[Redis]:
    """A client that never repeats a command by itself: who calls it knows whether twice is once."""
    redis = Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield redis
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_elasticsearch(settings: Settings) -> AsyncIterator[AsyncElasticsearch]:
    """A client without retries of its own; `info()` and `ping()` are not to be relied on, ask `cluster.health()`."""
    client = AsyncElasticsearch(
        settings.elasticsearch_url.get_secret_value(),
        request_timeout=ELASTICSEARCH_SECONDS,
        max_retries=0,
        retry_on_timeout=False,
    )
    try:
        yield client
    finally:
        await client.close()
