"""A gateway in the test's own loop, on topics, tables and a bucket of its module."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from compose.settings import Settings
from tests.servers import Servers
from tests.uploading import Gateway, gateway_on, provision_gateway


@pytest.fixture(scope="module")
def ready(request: pytest.FixtureRequest, servers: Servers, kafka: None, postgres: None, s3: None) -> Settings:
    settings = servers.settings(f"{servers.prefix}{request.module.__name__.rpartition('test_')[2]}_")
    asyncio.run(provision_gateway(settings))
    return settings


@pytest.fixture
async def gateway(ready: Settings) -> AsyncIterator[Gateway]:
    async with gateway_on(ready) as gateway:
        yield gateway
