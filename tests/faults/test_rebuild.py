"""A rebuild that is killed twice and a switch that dies half way, while a gateway is read from: every answer is whole."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import TCPConnector
from aiohttp.test_utils import TestClient, TestServer

from agents.stores import Stores, open_stores
from compose.settings import Settings
from gateway.app import build_app
from projections.leaderboard import leaderboard
from projections.statistics import statistics
from tests.given import announced, uploaded
from tests.servers import Servers
from tests.working import Command, command, produce, provision_log, settled, until, viewed, working

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(560)]

VIEWS = 2_000
FILM = "film-0"
PATHS = (
    "/api/analytics/top?timeframe=all_time",
    f"/api/analytics/videos/{FILM}/stats",
    f"/api/analytics/videos/{FILM}/history?bucket=day",
)
NEXT = {"leaderboard": leaderboard.version + 1, "statistics": statistics.version + 1}


class Asked:
    """What a gateway answered, again and again, and whether it was all of it."""

    def __init__(self) -> None:
        self.answers = 0
        self.wrong: list[Any] = []
        self.sources: set[str] = set()

    def take(self, status: int, body: Any) -> None:
        self.answers += 1
        match body:
            case {"items": [{"views": views}], "source": source}:
                self.sources.add(source)
            case {"total_views": views, "source": source}:
                self.sources.add(source)
            case {"points": points}:
                views = sum(point["views"] for point in points)
            case _:
                views = None
        if status != 200 or views != VIEWS:
            self.wrong.append((status, body))


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[Asked]:
    asked = Asked()

    async def ask(http: TestClient[Any, Any], path: str) -> None:
        while True:
            async with http.get(path) as response:
                asked.take(response.status, await response.json())
            await asyncio.sleep(0.05)

    # A connection a request: one that is kept may be closed by the server in the moment in which it is asked again.
    apart = TCPConnector(force_close=True)
    async with TestClient(TestServer(build_app(settings)), connector=apart) as http:

        async def is_known() -> bool:
            async with http.get(f"/api/videos/{FILM}") as response:
                return response.status == 200

        await until(is_known)
        asks = [asyncio.create_task(ask(http, path)) for path in PATHS]
        try:
            yield asked
        finally:
            for task in asks:
                task.cancel()
            ended = await asyncio.gather(*asks, return_exceptions=True)
        assert [error for error in ended if isinstance(error, Exception)] == []


async def killed(ordered: Command, stores: Stores, at_least: int) -> None:
    """Kill the rebuild, as the kernel kills, once so much is folded; every other time its processes die with it."""

    async def has_begun() -> bool:
        folded = "select sum(next_offset) from checkpoints where projection = 'statistics' and version = $1"
        return (await stores.pool.fetchval(folded, NEXT["statistics"]) or 0) >= at_least

    await until(has_begun, seconds=180)
    children = psutil.Process(ordered.process.pid).children()
    ordered.kill()
    for child in children[: at_least % 2 + 1]:
        os.kill(child.pid, signal.SIGKILL)


async def test_no_answer_fails_or_is_partial_while_a_rebuild_is_killed_and_a_switch_dies_half_way(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    await produce(settings, [announced(FILM), uploaded(FILM)])
    await produce(settings, [viewed(f"view-{i % VIEWS}", FILM) for i in range(VIEWS + VIEWS // 20)])
    with working(settings, servers, tmp_path):
        await settled(settings, Counter({FILM: VIEWS}))
        async with open_stores(settings) as stores, asking(settings) as asked:
            slow = ("statistics", "--workers", "2", "--rate", "150")
            await killed(Command(settings, servers, "rebuild", *slow), stores, 100)
            await killed(Command(settings, servers, "resume", *slow), stores, 501)
            assert "is ready" in await command(settings, servers, "resume", "statistics")
            assert "is ready" in await command(settings, servers, "rebuild", "leaderboard")
            await dies_half_way(settings, servers, stores)
            for name in NEXT:
                assert f"version {NEXT[name]} answers" in await command(settings, servers, "switch", name)
            reached = asked.answers

            async def more_were_asked() -> bool:
                return asked.answers > reached + 100

            await until(more_were_asked)
            assert await stores.pool.fetchval(f"select sum(views)::bigint from daily_v{NEXT['statistics']}") == VIEWS
            assert (asked.wrong[:3], asked.sources) == ([], {"leaderboard"})


async def dies_half_way(settings: Settings, servers: Servers, stores: Stores) -> None:
    """The switch has taken the answer from the old version when it dies; the new one's row is out of its reach."""
    async with stores.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "select from versions where projection = 'statistics' and version = $1 for update", NEXT["statistics"]
        )
        switching = Command(settings, servers, "switch", "statistics")
        waits = "select count(*) from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))"
        await until(lambda: connection.fetchval(waits))
        switching.kill()
    active = await stores.pool.fetchval(
        "select version from versions where projection = 'statistics' and state = 'active'"
    )
    assert active == statistics.version
