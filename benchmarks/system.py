"""A system of its own on the servers that run, and nothing of it left behind."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from agents.registry import Registry, register_declared
from agents.stores import Stores, open_stores
from compose.provisioning import provision
from compose.settings import Settings
from projections.queries.versions import Version, Versions
from schemas.streams import streams
from tests.servers import Servers
from tests.sweeping import sweep


class System(NamedTuple):
    """Its settings, and its open stores."""

    settings: Settings
    stores: Stores

    async def begin(self, projection: str) -> Version:
        """A version to be folded from the start."""
        await register_declared(self.stores.pool, streams())
        return await Registry(self.stores.pool).begin(projection, streams().projections[projection])

    async def drop(self, version: Version) -> None:
        await self.stores.sink(version).drop()
        await self.stores.pool.execute(
            "delete from versions where projection = $1 and version = $2", version.projection, version.number
        )

    def answering(self, version: Version) -> Versions:
        """As if this version answered."""
        return Versions([version._replace(state="active")])


@asynccontextmanager
async def own_system(settings: Settings) -> AsyncIterator[System]:
    """Topics, tables and keys below a prefix that nobody else has; programs that are started within find it in the environment."""
    own = settings.model_copy(update={"prefix": f"bench{uuid.uuid4().hex[:6]}_", "worker_id": ""})
    before = os.environ.get("ET_PREFIX"), os.environ.get("ET_WORKER_ID")
    os.environ |= {"ET_PREFIX": own.prefix, "ET_WORKER_ID": ""}
    await provision(own, streams())
    async with open_stores(own) as stores:
        try:
            yield System(own, stores)
        finally:
            await sweep(own)
            os.environ |= {name: value or "" for name, value in zip(("ET_PREFIX", "ET_WORKER_ID"), before, strict=True)}


@asynccontextmanager
async def running_system(*programs: str) -> AsyncIterator[tuple[System, Servers]]:
    """A system with some of `gateway` and `worker` of its own, and what starts more of them."""
    servers = await asyncio.to_thread(Servers, "stack")
    try:
        own = servers.settings(servers.prefix)
        await provision(own, streams())
        await asyncio.to_thread(servers.need, set(programs))
        async with open_stores(own) as stores:
            yield System(own, stores), servers
    finally:
        await asyncio.to_thread(servers.close, keep_logs=False)
