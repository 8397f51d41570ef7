"""Read your own write: on real servers, with a worker that folds, and with what answers when a server is away."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from compose.log import Appended, LogUnavailable
from compose.settings import Settings
from gateway.freshness import PATIENCE_SECONDS, STALE_HEADER
from gateway.keys import LOG, POSTGRES, REDIS
from projections.queries.versions import Versions
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis_keys import waits
from projections.statistics import statistics
from schemas.events import Event
from schemas.log import Place, furthest, read_token, write_token
from tests.given import announced, uploaded
from tests.servers import Servers
from tests.uploading import Gateway, gateway_on, provision_gateway
from tests.working import until, viewed, working

pytestmark = [
    pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch", "s3"),
    pytest.mark.asyncio(loop_scope="module"),
]

PAIRS = 1_000
AT_ONCE = 20
NOBODY = "redis://127.0.0.1:9/0"


@pytest.fixture(scope="module")
def world(servers: Servers) -> Settings:
    settings = servers.settings(f"{servers.prefix}fresh_")
    asyncio.run(provision_gateway(settings))
    return settings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    world: Settings, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway, and a worker that folds what it writes."""
    folder: Path = tmp_path_factory.mktemp("worker")
    with working(world, servers, folder, "fresh"):
        async with gateway_on(world) as gateway:
            token = await appended(gateway, announced("first"), uploaded("first"))
            for path in ("/api/videos/first", "/api/videos/search", "/api/analytics/top"):
                assert await read(gateway, path, token)
            yield gateway


async def appended(gateway: Gateway, *events: Event) -> str:
    """The token of all of `events`, as one that wrote them would hold it."""

    async def append(event: Event) -> Place:
        async def acknowledged() -> Appended | None:
            with suppress(LogUnavailable):
                return await gateway.http.app[LOG].append(event)

        found: Appended = await until(acknowledged)
        return found.place

    found = await asyncio.gather(*map(append, events))
    return write_token(found, gateway.settings.secret_key.get_secret_value())


def known(film: str, title: str = "Heat") -> list[Event]:
    """A film as it becomes known, the newest of all."""
    return [announced(film, title), uploaded(film, at=datetime.now(UTC).isoformat())]


def views_of(film: str) -> list[Event]:
    return [viewed(str(uuid.uuid4()), film) for _ in range(3)]


async def read(gateway: Gateway, path: str, token: str, **how: Any) -> dict[str, Any] | None:
    """What is answered after the write of `token`, asked again while the answer is that it is not folded yet; None for any other."""
    between = "&" if "?" in path else "?"

    async def answered() -> tuple[int, bytes] | None:
        async with gateway.http.get(f"{path}{between}after={token}", **how) as answer:
            return (answer.status, await answer.read()) if answer.status != 503 else None

    status, body = await until(answered)
    return json.loads(body) if status == 200 else None


async def wrote(gateway: Gateway, method: str, path: str, body: dict[str, Any], **how: Any) -> str:
    """The token of the write, sent again with the ids that a 503 gives back."""
    body = dict(body)

    async def acknowledged() -> str | None:
        async with gateway.http.request(method, path, json=body, **how) as answer:
            if answer.status == 503:
                problem = json.loads(await answer.read())
                body.update({name: problem[name] for name in ("view_id", "occurred_at") if name in problem})
                return None
            assert answer.status == 202, await answer.text()
            return answer.headers["X-Event-Position"]

    token: str = await until(acknowledged)
    return token


async def view_then_statistics(gateway: Gateway, number: int) -> bool:
    film = f"film-{number}"
    token = await wrote(gateway, "POST", f"/api/videos/{film}/views", {})
    if number % 2:
        found = await read(gateway, f"/api/analytics/videos/{film}/stats", token)
        return found is not None and (found["total_views"], found["views_last_hour"]) == (1, 1)
    top = await read(gateway, "/api/analytics/top?k=1000&timeframe=hour", token)
    return top is not None and (film, 1) in [(item["video_id"], item["views"]) for item in top["items"]]


async def position_then_resume(gateway: Gateway, number: int) -> bool:
    ann, seconds = {"X-Viewer-Id": f"ann-{number}"}, 40 + number % 500
    path = f"/api/videos/film-{number}/position"
    token = await wrote(gateway, "PUT", path, {"position_seconds": seconds, "duration_seconds": 900}, headers=ann)
    if number % 2:
        found = await read(gateway, path, token, headers=ann)
        return found is not None and found["position_seconds"] == seconds
    history = await read(gateway, "/api/history/continue", token, headers=ann)
    return history is not None and [item["position_seconds"] for item in history["items"]] == [seconds]


async def film_then_catalogue(gateway: Gateway, number: int) -> bool:
    film, word = str(uuid.uuid4()), f"q{number}x"
    token = await appended(gateway, *known(film, f"The {word} story"))
    if number % 2:
        found = await read(gateway, f"/api/videos/{film}", token)
        return found is not None and found["title"] == f"The {word} story"
    page = await read(gateway, "/api/videos?limit=100", token)
    return page is not None and film in [item["id"] for item in page["items"]]


async def film_then_search(gateway: Gateway, number: int) -> bool:
    film, word = str(uuid.uuid4()), f"w{number}z{uuid.uuid4().hex[:8]}"
    token = await appended(gateway, *known(film, f"{word} returns"))
    if number % 2:
        found = await read(gateway, f"/api/videos/search?query={word}", token)
        return found is not None and [item["id"] for item in found["items"]] == [film]
    suggested = await read(gateway, f"/api/videos/suggest?q={word}", token)
    return suggested is not None and film in [item["video_id"] for item in suggested["suggestions"]]


Pair = Callable[[Gateway, int], Awaitable[bool]]
KINDS: list[Pair] = [view_then_statistics, position_then_resume, film_then_catalogue, film_then_search]


@pytest.mark.timeout(600)  # forty seconds on a machine that has nothing else to do
async def test_a_thousand_writes_are_each_seen_by_the_read_that_follows(gateway: Gateway) -> None:
    films = [f"film-{number}" for number in range(PAIRS // len(KINDS))]
    token = await appended(gateway, *(event for film in films for event in known(film)))
    assert await read(gateway, "/api/videos/film-4", token)
    seconds: dict[str, list[float]] = {kind.__name__: [] for kind in KINDS}
    missed: list[str] = []
    numbers = iter(range(PAIRS))

    async def pairs() -> None:
        for number in numbers:
            kind, began = KINDS[number % len(KINDS)], time.monotonic()
            if not await kind(gateway, number // len(KINDS)):
                missed.append(f"{kind.__name__} {number}")
            seconds[kind.__name__].append(time.monotonic() - began)

    await asyncio.gather(*(pairs() for _ in range(AT_ONCE)))
    for name, taken in seconds.items():
        ordered = sorted(taken)
        p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        print(f"{name}: {len(ordered)} pairs, p50 {p50 * 1_000:.0f} ms, p99 {p99 * 1_000:.0f} ms")
    assert missed == []
    assert sum(map(len, seconds.values())) == PAIRS


async def test_several_tokens_are_waited_for_together(gateway: Gateway) -> None:
    film, other = str(uuid.uuid4()), str(uuid.uuid4())
    tokens = [await appended(gateway, *known(name)) for name in (film, other)]
    found = await read(gateway, "/api/videos?limit=100", ",".join(tokens))
    assert found is not None
    assert {film, other} <= {item["id"] for item in found["items"]}


async def test_a_film_is_delivered_by_a_read_after_its_write_although_it_was_just_looked_up_in_vain(
    gateway: Gateway,
) -> None:
    film = str(uuid.uuid4())
    async with gateway.http.get(f"/api/videos/{film}/stream") as answer:
        assert answer.status == 404
    token = await appended(gateway, *known(film))
    async with gateway.http.get(f"/api/videos/{film}/stream?after={token}") as answer:
        # The film is known; it is its object that nobody has stored.
        assert "No such file" in await answer.text()


async def test_a_followed_board_begins_with_the_view_that_was_written(gateway: Gateway) -> None:
    film = str(uuid.uuid4())
    await appended(gateway, *known(film))
    token = await appended(gateway, *views_of(film))
    path = f"/api/analytics/top/stream?k=1000&timeframe=hour&after={token}"
    async with gateway.http.get(path) as answer:
        async for line in answer.content:
            if line.startswith(b"data: "):
                board = json.loads(line.removeprefix(b"data: "))
                break
    assert {"video_id": film, "views": 3} in [{k: i[k] for k in ("video_id", "views")} for i in board["items"]]


async def test_when_another_store_answers_it_is_its_projection_that_is_waited_for(
    gateway: Gateway, world: Settings
) -> None:
    film = str(uuid.uuid4())
    token = await appended(gateway, *known(film), *views_of(film))
    async with gateway_on(world.model_copy(update={"redis_url": SecretStr(NOBODY)})) as without_redis:
        stats = await read(without_redis, f"/api/analytics/videos/{film}/stats", token)
        top = await read(without_redis, "/api/analytics/top?k=1000&timeframe=hour", token)
    assert stats is not None
    assert top is not None
    assert (stats["total_views"], stats["source"], top["source"]) == (3, "aggregates", "raw")
    assert film in [item["video_id"] for item in top["items"]]


async def test_a_read_sees_its_write_while_the_log_is_down(gateway: Gateway, world: Settings) -> None:
    film = str(uuid.uuid4())
    token = await appended(gateway, *known(film))
    async with gateway_on(world.model_copy(update={"kafka_bootstrap": "127.0.0.1:9"})) as without_log:
        assert await read(without_log, f"/api/videos/{film}", token)


@pytest.fixture(scope="module")
def nobody_folds(servers: Servers) -> Settings:
    settings = servers.settings(f"{servers.prefix}idle_")
    asyncio.run(provision_gateway(settings))
    return settings


async def test_whoever_folds_is_told_of_a_read_that_waits(nobody_folds: Settings) -> None:
    async with gateway_on(nobody_folds) as gateway, gateway.http.app[REDIS].pubsub() as messages:
        await messages.subscribe(waits(nobody_folds.prefix))
        token = await appended(gateway, *views_of("film"))
        reading = asyncio.create_task(read(gateway, "/api/analytics/top", token))

        async def heard() -> str | None:
            message = await messages.get_message(ignore_subscribe_messages=True, timeout=1.0)
            return message["data"].decode() if message else None

        places = read_token(token, gateway.settings.secret_key.get_secret_value())
        version, *told = (await until(heard)).split()
        assert version == Versions().active("leaderboard").full_name
        assert set(told) == {place.id for place in furthest(places)}
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_an_answer_without_the_write_says_of_which_projection_it_is_stale(nobody_folds: Settings) -> None:
    async with gateway_on(nobody_folds.model_copy(update={"redis_url": SecretStr(NOBODY)})) as gateway:
        await PostgresSink(gateway.http.app[POSTGRES], statistics).prepare()
        token = await appended(gateway, *views_of("film"), announced("film"))
        path = f"/api/analytics/top?after={token}"

        async def answered(path: str) -> tuple[int, str | None]:
            async with gateway.http.get(path) as answer:
                return answer.status, answer.headers.get(STALE_HEADER)

        began = time.monotonic()
        fresh, stale = await asyncio.gather(answered(path), answered(f"{path}&stale=ok"))
        assert time.monotonic() - began < 2 * PATIENCE_SECONDS
        assert fresh == (503, None)
        assert stale == (200, "catalogue, statistics")
