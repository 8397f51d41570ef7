"""Other services are told of events by HTTP: each at least once, in the order of its partition, again from wherever they ask."""

import asyncio
import contextlib
import json
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from standardwebhooks import Webhook as Standard

from agents.webhooks.claims import Claims
from agents.webhooks.delivering import Delivering
from agents.webhooks.delivery import CURSOR_HEADER
from compose.connections import open_postgres
from compose.outgoing import open_outgoing
from compose.settings import Settings
from gateway.keys import LOG
from schemas.events import VideoViewed, ViewerForgotten
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.given import EVENING
from tests.servers import Servers
from tests.uploading import Gateway, gateway_on
from tests.working import until, viewed, working

pytestmark = pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch", "s3")

TOKEN = "an-operators-token"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


class Told(NamedTuple):
    """One call, as the subscriber got it."""

    event_id: str
    body: bytes
    headers: Any
    path: str

    @property
    def event(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


class Subscriber:
    """A real HTTP server. `answers` holds what the next calls are answered, then it is 204."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.taken: list[Told] = []
        self.answers: list[web.Response] = []
        self.holds: Callable[[str], Awaitable[None]] | None = None

    async def hear(self, request: web.Request) -> web.Response:
        told = Told(request.headers["webhook-id"], await request.read(), request.headers, request.path)
        self.told.append(told)
        if self.holds:
            await self.holds(request.path)
        answer = self.answers.pop(0) if self.answers else web.Response(status=204)
        if answer.status < 300:
            self.taken.append(told)
        return answer

    def views(self) -> list[str]:
        return [told.event["data"]["view_id"] for told in self.taken]


@contextlib.asynccontextmanager
async def subscriber_at() -> AsyncIterator[tuple[Subscriber, str]]:
    subscriber, app = Subscriber(), web.Application()
    app.router.add_post("/{name}", subscriber.hear)
    async with TestServer(app) as server:
        yield subscriber, str(server.make_url("/hook"))


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    async with subscriber_at() as (made, url):
        made.url = url  # type: ignore[attr-defined]
        yield made


@pytest.fixture
def operated(ready: Settings) -> Settings:
    more = {"admin_token": SecretStr(TOKEN), "webhook_private_addresses": True}
    return ready.model_copy(update=more)


@pytest.fixture
async def gateway(operated: Settings) -> AsyncIterator[Gateway]:
    async with gateway_on(operated) as gateway:
        yield gateway
        for item in (await asks(gateway, "GET", ""))["items"]:
            await asks(gateway, "DELETE", f"/{item['id']}")


async def asks(gateway: Gateway, method: str, path: str, *, status: int | None = None, **how: Any) -> dict[str, Any]:
    async with gateway.http.request(method, f"/api/webhooks{path}", headers=OPERATOR, **how) as answer:
        raw = await answer.read()
        assert status is None or answer.status == status, raw
        document: dict[str, Any] = json.loads(raw or b"{}")
        return document


async def subscribe(gateway: Gateway, subscriber: Subscriber, *types: type, path: str = "/hook") -> dict[str, Any]:
    url = subscriber.url.replace("/hook", path)  # type: ignore[attr-defined]
    body = {"url": url, "types": [t.type for t in types or (VideoViewed,)]}  # type: ignore[attr-defined]
    return await asks(gateway, "POST", "", json=body, status=201)


async def watch(gateway: Gateway, count: int) -> list[str]:
    """So many views, in this order; the ids lie on several partitions."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for view_id in ids:
        await gateway.http.app[LOG].append(viewed(view_id, "heat"), event_id=view_id)
    return ids


@contextlib.asynccontextmanager
async def delivering(settings: Settings, *, lease_seconds: float = 10.0) -> AsyncIterator[None]:
    async with open_postgres(settings) as pool, open_outgoing(settings) as outgoing:
        claims = Claims(pool, "test", lease_seconds=lease_seconds)
        task = asyncio.create_task(Delivering(settings, claims, outgoing).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def in_order(told: list[Told]) -> dict[int, list[str]]:
    """What was told, partition by partition."""
    by_partition: dict[int, list[str]] = defaultdict(list)
    for one in told:
        by_partition[_partition(one)].append(one.event_id)
    return by_partition


def _partition(told: Told) -> int:
    return partition_of(told.event["data"]["view_id"].encode(), streams().topics["views"].partitions)


async def all_taken(subscriber: Subscriber, ids: list[str], seconds: float = 30) -> None:
    async def are_there() -> bool:
        return set(ids) <= set(subscriber.views())

    await until(are_there, seconds=seconds)


@pytest.mark.parametrize("path", ["", "/unknown", "/unknown/deliveries"])
async def test_without_the_operators_token_nobody_is_answered(gateway: Gateway, path: str) -> None:
    async with gateway.http.get(f"/api/webhooks{path}", headers={"Authorization": "Bearer guessed"}) as answer:
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_where_no_token_is_set_nothing_is_allowed(ready: Settings) -> None:
    without = ready.model_copy(update={"admin_token": None})
    async with gateway_on(without) as closed, closed.http.get("/api/webhooks", headers=OPERATOR) as answer:
        assert (answer.status, "ET_ADMIN_TOKEN" in (await answer.json())["detail"]) == (403, True)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": "ftp://example.org"}, "#/url"),
        ({"url": 7}, "#/url"),
        ({}, "#/url"),
        ({"url": "https://example.org/", "types": ["entertainmenttime.video.praised.v1"]}, "#/types"),
        ({"url": "https://example.org/", "types": []}, "#/types"),
    ],
)
async def test_a_bad_subscription_is_refused_with_its_field_named(
    gateway: Gateway, body: dict[str, Any], pointer: str
) -> None:
    problem = await asks(gateway, "POST", "", json=body, status=422)
    assert problem["errors"][0]["pointer"] == pointer


async def test_a_private_address_is_refused_unless_a_setting_allows_it(operated: Settings) -> None:
    async with gateway_on(operated.model_copy(update={"webhook_private_addresses": False})) as strict:
        problem = await asks(strict, "POST", "", json={"url": "http://127.0.0.1:9200/"}, status=422)
        assert "private network" in problem["detail"]


async def test_the_secret_is_told_once(gateway: Gateway, subscriber: Subscriber) -> None:
    made = await subscribe(gateway, subscriber)
    assert made["secret"].startswith("whsec_")
    assert made["secret"] not in json.dumps(
        [await asks(gateway, "GET", f"/{made['id']}"), await asks(gateway, "GET", "")]
    )


async def test_a_ping_is_signed_and_tells_what_came_of_it(gateway: Gateway, subscriber: Subscriber) -> None:
    made = await subscribe(gateway, subscriber)
    result = await asks(gateway, "POST", f"/{made['id']}/ping", status=200)
    assert (result["delivered"], result["status"]) == (True, 204)
    (told,) = subscriber.told
    assert Standard(made["secret"]).verify(told.body, dict(told.headers))["id"] == result["event_id"]


async def test_an_event_is_told_signed_as_a_cloudevent(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    made = await subscribe(gateway, subscriber)
    (view_id,) = await watch(gateway, 1)
    await gateway.http.app[LOG].append(ViewerForgotten(viewer_id="ann", occurred_at=EVENING))
    async with delivering(operated):
        await all_taken(subscriber, [view_id])
    (told,) = subscriber.told  # what was not asked for is not told
    event = Standard(made["secret"]).verify(told.body, {name.lower(): value for name, value in told.headers.items()})
    assert (event["specversion"], event["id"], event["type"]) == ("1.0", view_id, VideoViewed.type)
    assert (told.event_id, event["data"]["video_id"], event["source"]) == (view_id, "heat", "/gateway")
    assert told.headers["Content-Type"].startswith("application/cloudevents+json")


async def test_what_fails_is_told_again_and_in_order(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    made = await subscribe(gateway, subscriber)
    subscriber.answers = [web.Response(status=500), web.Response(status=302, headers={"Location": "/elsewhere"})]
    ids = await watch(gateway, 30)
    async with delivering(operated):
        await all_taken(subscriber, ids)

        async def are_written_down() -> bool:
            shown = (await asks(gateway, "GET", f"/{made['id']}/deliveries"))["items"]
            return {item["status"] for item in shown} >= {500, 302, 204}

        await until(are_written_down, seconds=10)
    assert {told.path for told in subscriber.told} == {"/hook"}  # no redirect was followed
    appended = {view_id: number for number, view_id in enumerate(ids)}
    for partition in in_order(subscriber.taken).values():
        assert [appended[view_id] for view_id in partition] == sorted(appended[view_id] for view_id in partition)


async def test_a_subscriber_that_asks_for_time_is_given_it(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    await subscribe(gateway, subscriber)
    subscriber.answers = [web.Response(status=503, headers={"Retry-After": "3"})]
    began = time.monotonic()
    ids = await watch(gateway, 1)
    async with delivering(operated):
        await all_taken(subscriber, ids)
    assert time.monotonic() - began >= 3


async def test_who_is_gone_is_not_called_again(gateway: Gateway, subscriber: Subscriber, operated: Settings) -> None:
    made = await subscribe(gateway, subscriber)
    subscriber.answers = [web.Response(status=410)]
    await watch(gateway, 1)
    async with delivering(operated):

        async def is_disabled() -> bool:
            return bool((await asks(gateway, "GET", f"/{made['id']}"))["state"] == "disabled")

        await until(is_disabled, seconds=20)
    assert "410" in (await asks(gateway, "GET", f"/{made['id']}"))["why"]
    assert len(subscriber.told) == 1


async def test_after_hours_of_failure_it_is_paused_and_goes_on_where_it_was_when_resumed(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    made = await subscribe(gateway, subscriber)
    subscriber.answers = [web.Response(status=500) for _ in range(3)]
    ids = await watch(gateway, 1)
    impatient = operated.model_copy(update={"webhook_give_up_hours": 1 / 3_600})
    async with delivering(impatient):

        async def is_paused() -> bool:
            return bool((await asks(gateway, "GET", f"/{made['id']}"))["state"] == "paused")

        await until(is_paused, seconds=30)
        assert "it answered 500" in (await asks(gateway, "GET", f"/{made['id']}"))["why"]
        subscriber.answers = []
        await asks(gateway, "POST", f"/{made['id']}/resume", status=200)
        await all_taken(subscriber, ids)


async def test_a_dead_subscriber_holds_no_other_up(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    never = asyncio.Event()

    async def hold(path: str) -> None:
        if path == "/dead":
            await never.wait()

    subscriber.holds = hold
    await subscribe(gateway, subscriber, path="/dead")
    await subscribe(gateway, subscriber)
    ids = await watch(gateway, 20)
    async with delivering(operated):
        await all_taken(subscriber, ids, seconds=9)  # less than a call may take
    never.set()


async def test_a_replay_from_a_cursor_tells_exactly_the_same_again(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    made = await subscribe(gateway, subscriber)
    ids = await watch(gateway, 40)
    async with delivering(operated):
        await all_taken(subscriber, ids)
        first, subscriber.taken = subscriber.taken, []
        await asks(gateway, "POST", f"/{made['id']}/replay", json={"cursor": made["cursor"]}, status=200)
        await all_taken(subscriber, ids)
        again, subscriber.taken = subscriber.taken, []
        assert in_order(again) == in_order(first)
        assert {one.event_id: one.body for one in again} == {one.event_id: one.body for one in first}
        # And from the cursor that came with an event: that event is the first of its partition.
        middle = first[20]
        await asks(gateway, "POST", f"/{made['id']}/replay", json={"cursor": middle.headers[CURSOR_HEADER]}, status=200)
        await all_taken(subscriber, [one.event_id for one in first[20:]])
        assert in_order(subscriber.taken)[_partition(middle)][0] == middle.event_id


async def test_a_replay_from_the_beginning_tells_everything(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    before = await watch(gateway, 3)
    made = await subscribe(gateway, subscriber)
    async with delivering(operated):
        await asks(gateway, "POST", f"/{made['id']}/replay", json={"cursor": "beginning"}, status=200)
        await all_taken(subscriber, before)


@pytest.mark.parametrize("cursor", ["", "nonsense", "x" * 3_000])
async def test_a_cursor_that_is_none_is_refused(gateway: Gateway, subscriber: Subscriber, cursor: str) -> None:
    made = await subscribe(gateway, subscriber)
    problem = await asks(gateway, "POST", f"/{made['id']}/replay", json={"cursor": cursor}, status=422)
    assert problem["errors"][0]["pointer"] == "#/cursor"


async def test_while_it_is_paused_nothing_is_told(gateway: Gateway, subscriber: Subscriber, operated: Settings) -> None:
    made, other = await subscribe(gateway, subscriber, path="/paused"), await subscribe(gateway, subscriber)
    assert other["state"] == "active"
    await asks(gateway, "POST", f"/{made['id']}/pause", status=200)
    ids = await watch(gateway, 5)
    async with delivering(operated):
        await all_taken(subscriber, ids)
        assert {told.path for told in subscriber.told} == {"/hook"}


async def test_one_worker_at_a_time_delivers_to_a_subscriber(
    gateway: Gateway, subscriber: Subscriber, operated: Settings
) -> None:
    await subscribe(gateway, subscriber)
    ids = await watch(gateway, 30)
    async with delivering(operated), delivering(operated):
        await all_taken(subscriber, ids)
    assert sorted(one.event_id for one in subscriber.told) == sorted(ids)


async def test_a_worker_that_is_killed_in_the_middle_leaves_nothing_untold(
    gateway: Gateway,
    subscriber: Subscriber,
    operated: Settings,
    servers: Servers,
    tmp_path: Path,
) -> None:
    await subscribe(gateway, subscriber)
    ids = await watch(gateway, 150)

    async def tarry(path: str) -> None:
        await asyncio.sleep(0.05)  # so that the kill comes in the middle

    subscriber.holds = tarry
    with working(operated, servers, tmp_path, "one") as (worker,):

        async def is_under_way() -> bool:
            return len(subscriber.taken) > 40

        await until(is_under_way)
        worker.kill()
        assert len(set(subscriber.views())) < len(ids)
        subscriber.holds = None
        worker.start()
        await all_taken(subscriber, ids, seconds=90)
