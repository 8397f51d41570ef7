"""A viewer may ask for all that is held of them, and to be forgotten."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from compose.local.stack import ROOT
from compose.log import LogUnavailable
from compose.settings import Settings
from compose.viewers import ViewerKeys
from gateway.keys import LOG, POSTGRES, RECORDS, VIEWERS
from gateway.viewers import COOKIE
from projections.positions import positions
from projections.projection import Projection
from projections.queries.viewers import PAGE_ROWS
from projections.sinks.postgres import PostgresSink
from projections.sinks.sink import LogIdentity, StoreUnavailable
from projections.views import views
from schemas.events import Event, PositionUpdated, VideoViewed, ViewerForgotten
from tests.given import announced, recorded
from tests.servers import Servers
from tests.uploading import Gateway, gateway_on
from tests.working import until

pytestmark = [
    pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch", "s3"),
    pytest.mark.asyncio(loop_scope="module"),
]

EXPORT = "/api/viewer/export"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(ready: Settings) -> AsyncIterator[Gateway]:
    async with gateway_on(ready) as gateway:
        await gateway.know(announced("heat", "Heat"))
        for projection in (views, positions):
            await PostgresSink(gateway.http.app[POSTGRES], projection).prepare()
        yield gateway


class Viewer:
    """Somebody with a header of their own."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.headers = {"X-Viewer-Id": f"ann-{uuid.uuid4().hex}"}

    async def asks(self, method: str, path: str, **how: Any) -> tuple[int, Any]:
        async with self.gateway.http.request(method, path, headers=self.headers, **how) as answer:
            return answer.status, json.loads(await answer.read())

    async def pseudonym(self) -> str:
        viewer_id: str = (await self.asks("GET", "/api/viewer"))[1]["viewer_id"]
        return viewer_id


@pytest.fixture
def viewer(gateway: Gateway) -> Viewer:
    gateway.http.session.cookie_jar.clear()
    return Viewer(gateway)


async def fold(gateway: Gateway, projection: Projection, events: Sequence[Event]) -> None:
    """As the worker does, each call on a partition of its own."""
    sink, partition = PostgresSink(gateway.http.app[POSTGRES], projection), uuid.uuid4().int % 2**31
    place = (await sink.checkpoint(projection.topics[0], partition, LogIdentity("test", "test", 1))).place
    changes = list(projection.fold(recorded(events, partition=partition)))
    await sink.apply(changes, expected=place, next_offset=len(events))


def watched(viewer_id: str, *, times: int = 1) -> list[Event]:
    now = datetime.now(UTC)
    return [
        VideoViewed(view_id=str(uuid.uuid4()), video_id="heat", viewer_id=viewer_id, session_id="tv", occurred_at=now)
        for _ in range(times)
    ]


def stopped_at(viewer_id: str, seconds: float) -> PositionUpdated:
    return PositionUpdated(
        viewer_id=viewer_id,
        video_id="heat",
        position_seconds=seconds,
        duration_seconds=100.0,
        occurred_at=datetime.now(UTC),
    )


async def forgotten(gateway: Gateway, viewer_id: str) -> list[str]:
    """The ids of the events that forget this viewer."""
    found = [decoded for decoded in await gateway.events("viewers") if decoded.event.key == viewer_id]
    assert all(isinstance(decoded.event, ViewerForgotten) for decoded in found)
    return [decoded.recorded.event_id for decoded in found]


def command(servers: Servers, gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "faust", "-A", "agents", *words],
        cwd=ROOT,
        env={**os.environ, **servers.endpoints(gateway.settings.prefix)},
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_an_export_holds_views_with_titles_positions_and_history(gateway: Gateway, viewer: Viewer) -> None:
    viewer_id = await viewer.pseudonym()
    await fold(gateway, views, watched(viewer_id))
    await fold(gateway, positions, [stopped_at(viewer_id, 50.0)])
    await fold(gateway, views, watched("somebody-else"))
    status, export = await viewer.asks("GET", EXPORT)
    assert status == 200
    assert export["viewer_id"] == viewer_id
    assert datetime.fromisoformat(export["given_at"]) <= datetime.now(UTC)
    assert [(view["title"], view["session_id"]) for view in export["views"]] == [("Heat", "tv")]
    assert [(p["title"], p["position_seconds"]) for p in export["positions"]] == [("Heat", 50.0)]
    assert [(film["title"], film["completed"]) for film in export["history"]] == [("Heat", False)]


async def test_an_export_of_many_pages_is_whole(gateway: Gateway, viewer: Viewer) -> None:
    viewer_id, many = await viewer.pseudonym(), 2 * PAGE_ROWS + 1
    events = watched(viewer_id, times=many)
    await fold(gateway, views, events)
    _, export = await viewer.asks("GET", EXPORT)
    assert [view["view_id"] for view in export["views"]] == [event.key for event in events]


async def test_an_export_is_never_held_whole(gateway: Gateway, viewer: Viewer) -> None:
    viewer_id = await viewer.pseudonym()
    await fold(gateway, views, watched(viewer_id, times=PAGE_ROWS))
    async with gateway.http.get(EXPORT, headers=viewer.headers) as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert "viewer.json" in answer.headers["Content-Disposition"]
        assert len((await answer.json())["views"]) == PAGE_ROWS


async def test_who_is_forgotten_and_comes_back_is_somebody_new(gateway: Gateway, viewer: Viewer) -> None:
    before = await viewer.pseudonym()
    status, answer = await viewer.asks("DELETE", "/api/viewer")
    assert (status, answer["event"]["topic"]) == (202, "viewers")
    assert await forgotten(gateway, before) == [answer["event"]["id"]]
    assert before not in json.dumps(answer)
    assert await viewer.pseudonym() != before


async def test_every_gateway_lets_go_of_who_is_forgotten(gateway: Gateway, viewer: Viewer) -> None:
    before = await viewer.pseudonym()
    async with gateway_on(gateway.settings) as other:
        twin = Viewer(other)
        twin.headers = viewer.headers
        assert await twin.pseudonym() == before
        await viewer.asks("DELETE", "/api/viewer")

        async def is_somebody_new() -> bool:
            return await twin.pseudonym() != before

        await until(is_somebody_new, seconds=5)


async def test_an_export_after_forgetting_is_a_404_in_words(gateway: Gateway, viewer: Viewer) -> None:
    await viewer.pseudonym()
    await viewer.asks("DELETE", "/api/viewer")
    status, problem = await viewer.asks("GET", EXPORT)
    assert (status, "forgotten" in problem["detail"]) == (404, True)


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/api/viewer"), ("GET", EXPORT)])
async def test_who_never_watched_is_unknown_and_stays_it(
    gateway: Gateway, viewer: Viewer, method: str, path: str
) -> None:
    assert (await viewer.asks(method, path))[0] == 404
    assert await gateway.http.app[VIEWERS].keys.find(f"header:{viewer.headers['X-Viewer-Id']}") is None


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/api/viewer"), ("GET", EXPORT)])
async def test_nobody_is_asked_who_they_are(gateway: Gateway, viewer: Viewer, method: str, path: str) -> None:
    viewer.headers = {}
    status, problem = await viewer.asks(method, path)
    assert (status, problem["errors"][0]["header"]) == (401, "X-Viewer-Id")


async def test_the_cookie_of_who_is_forgotten_goes(gateway: Gateway, viewer: Viewer) -> None:
    async with gateway.http.get("/api/viewer"):
        pass
    async with gateway.http.delete("/api/viewer") as answer:
        assert answer.status == 202
        assert answer.cookies[COOKIE]["max-age"] == "0"


async def test_while_the_log_is_away_nobody_is_forgotten(gateway: Gateway, viewer: Viewer) -> None:
    before = await viewer.pseudonym()
    gateway.break_log()
    try:
        status, _ = await viewer.asks("DELETE", "/api/viewer")
    finally:
        gateway.mend_log()
    assert status == 503
    assert await viewer.pseudonym() == before


async def test_forgetting_that_was_cut_short_is_finished_by_asking_again(gateway: Gateway, viewer: Viewer) -> None:
    viewer_id = await viewer.pseudonym()

    class Cut:
        """A pool that gives no connection any more: the process died after the event."""

        def acquire(self) -> Any:
            raise OSError("cut")

    with pytest.raises(StoreUnavailable):
        await ViewerKeys(Cut()).forget(viewer_id, gateway.http.app[LOG])
    assert await viewer.pseudonym() == viewer_id
    await viewer.asks("DELETE", "/api/viewer")
    first, again = await forgotten(gateway, viewer_id)
    assert first == again
    assert await viewer.pseudonym() != viewer_id


async def test_an_operator_exports_and_forgets_by_pseudonym(
    gateway: Gateway, viewer: Viewer, servers: Servers, tmp_path: Any
) -> None:
    viewer_id = await viewer.pseudonym()
    await fold(gateway, views, watched(viewer_id))
    file = tmp_path / "viewer.json"
    written = await asyncio.to_thread(command, servers, gateway, "export", viewer_id, "--output", str(file))
    assert written.returncode == 0, written.stderr
    assert len(json.loads(file.read_bytes())["views"]) == 1
    done = await asyncio.to_thread(command, servers, gateway, "forget", viewer_id)
    assert (done.returncode, "forgotten by viewers/" in done.stdout) == (0, True), done
    assert await viewer.pseudonym() != viewer_id
    again = await asyncio.to_thread(command, servers, gateway, "forget", viewer_id)
    assert (again.returncode, "was forgotten at" in again.stdout) == (0, True), again
    assert len(await forgotten(gateway, viewer_id)) == 1


async def test_a_pseudonym_that_nobody_has_is_told_in_words(gateway: Gateway, servers: Servers) -> None:
    done = await asyncio.to_thread(command, servers, gateway, "export", "nobody")
    assert (done.returncode, "there is no viewer 'nobody'" in done.stderr) == (1, True), done


async def test_somebody_that_another_service_speaks_of_can_be_forgotten(gateway: Gateway) -> None:
    viewer_id = uuid.uuid4().hex
    assert not await gateway.http.app[RECORDS].exist(viewer_id)
    await fold(gateway, positions, [stopped_at(viewer_id, 50.0)])
    assert await gateway.http.app[RECORDS].exist(viewer_id)


async def test_a_log_that_does_not_answer_is_told_by_name(gateway: Gateway) -> None:
    gateway.break_log()
    try:
        with pytest.raises(LogUnavailable):
            await gateway.http.app[VIEWERS].keys.forget("ann", gateway.http.app[LOG])
    finally:
        gateway.mend_log()
    assert await gateway.http.app[VIEWERS].keys.forgotten_at("ann") is None
