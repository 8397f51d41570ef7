"""A server that is stopped while a worker folds, and started again, is waited for: nothing is parked, lost or counted twice."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.connections import open_elasticsearch, open_postgres
from compose.settings import Settings
from projections.queries.versions import declared
from projections.sinks.elasticsearch import index_name
from tests.given import announced
from tests.servers import Servers
from tests.working import Totals, Worker, produce, provision_log, settled, until, viewed, working

STORES = ("redis", "postgres", "elasticsearch")
PART = 500


@pytest.fixture
def own() -> Iterator[Servers]:
    """Servers that nobody else has."""
    servers = Servers("local")
    try:
        servers.need({"kafka", *STORES})
        yield servers
    finally:
        servers.close(keep_logs=False)


async def produce_part(settings: Settings, number: int) -> None:
    """Views of one film, and the announcement of another."""
    views = [viewed(f"view-{number}-{i}", "film") for i in range(PART)]
    await produce(settings, [*views, announced(f"film-{number}")])


async def has_documents(settings: Settings, number: int) -> bool:
    async with open_elasticsearch(settings) as client:
        index = index_name(settings.prefix, "search", declared("search").number)
        await client.indices.refresh(index=index)
        return int((await client.count(index=index))["count"]) == number


async def has_said(worker: Worker, *words: str) -> None:
    async def is_said() -> bool:
        return any(all(word in line for word in words) for line in worker.said.splitlines())

    await until(is_said)


@pytest.mark.timeout(400)  # Elasticsearch starts twice
async def test_a_store_that_is_stopped_is_waited_for_and_everything_goes_on_by_itself(
    own: Servers, tmp_path: Path
) -> None:
    settings = own.settings(own.prefix)
    await provision_log(settings)
    with working(settings, own, tmp_path, "one") as (worker,):
        await produce_part(settings, 0)
        await settled(settings, Counter(film=PART))
        for number, store in enumerate(STORES, start=1):
            await asyncio.to_thread(own.order, "down", store)
            await produce_part(settings, number)
            await has_said(worker, "a store is unavailable", f"{store} is unavailable")
            await asyncio.to_thread(own.order, "up", store)
        films = Counter(film=PART * (1 + len(STORES)))
        assert await settled(settings, films) == Totals(films, films, films)
        await until(lambda: has_documents(settings, 1 + len(STORES)))
        assert worker.said.count("the store is back") >= len(STORES)
        assert worker.process.poll() is None
    async with open_postgres(settings, connections=1) as pool:
        assert await pool.fetchval("select count(*) from parked") == 0
