"""The gateway through HTTP, on real servers: what it takes, what it refuses, and what it says while a server is away."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from compose.settings import Settings
from gateway.keys import LOG
from gateway.viewers import COOKIE
from schemas.events import PositionUpdated, VideoViewed
from schemas.log import Place, write_token
from schemas.streams import streams
from tests.given import announced, as_model, deleted, uploaded
from tests.uploading import Gateway, gateway_on

pytestmark = [
    pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch", "s3"),
    pytest.mark.asyncio(loop_scope="module"),
]

JSON = "application/json"
NOBODY = "postgresql://nobody@127.0.0.1:9/nothing"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(ready: Settings) -> AsyncIterator[Gateway]:
    async with gateway_on(ready) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def video(gateway: Gateway) -> str:
    """A film that the catalogue knows; whoever asks has no cookie yet."""
    gateway.http.session.cookie_jar.clear()
    video_id = str(uuid.uuid4())
    await gateway.know(announced(video_id), uploaded(video_id))
    return video_id


async def told(gateway: Gateway, method: str, path: str, **how: Any) -> tuple[int, dict[str, Any]]:
    """The status and the document; every error is a problem document that says so itself."""
    async with gateway.http.request(method, path, **how) as answer:
        document = json.loads(await answer.read() or b"{}")
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
            assert document["status"] == answer.status
            assert document["title"]
            assert document["detail"]
            assert "Traceback" not in json.dumps(document)
        return answer.status, document


async def ends(gateway: Gateway) -> Any:
    """Where each topic's log ends: whatever was appended has moved it."""
    places = [(name, number) for name, topic in streams().topics.items() for number in range(topic.partitions)]
    return dict(await gateway.http.app[LOG].ends(places))


VIEWS, POSITION = "/api/videos/{video}/views", "/api/videos/{video}/position"
NUL = b'{"view_id": "a\\u0000"}'
BAD_BODIES = [
    ("POST", VIEWS, b"", 400, "#"),
    ("POST", VIEWS, b"[]", 400, "#"),
    ("POST", VIEWS, b"{", 400, "#"),
    ("POST", VIEWS, b'{"view_id": "a", "view_id": "b"}', 400, "#"),
    ("POST", VIEWS, NUL, 400, "#"),
    ("POST", VIEWS, b'{"watched_seconds": NaN}', 400, "#"),
    ("POST", VIEWS, b'{"view_id": ""}', 422, "#/view_id"),
    ("POST", VIEWS, b'{"view_id": 7}', 422, "#/view_id"),
    ("POST", VIEWS, b'{"view_id": null}', 422, "#/view_id"),
    ("POST", VIEWS, b'{"view_id": "a b"}', 422, "#/view_id"),
    ("POST", VIEWS, json.dumps({"view_id": "x" * 65}).encode(), 422, "#/view_id"),
    ("POST", VIEWS, b'{"view_id": "a\\n"}', 422, "#/view_id"),
    ("POST", VIEWS, b'{"watched_seconds": "5"}', 422, "#/watched_seconds"),
    ("POST", VIEWS, b'{"watched_seconds": true}', 422, "#/watched_seconds"),
    ("POST", VIEWS, b'{"watched_seconds": -0.1}', 422, "#/watched_seconds"),
    ("POST", VIEWS, b'{"watched_seconds": 1000001}', 422, "#/watched_seconds"),
    ("POST", VIEWS, b'{"occurred_at": 1700000000}', 422, "#/occurred_at"),
    ("POST", VIEWS, b'{"occurred_at": "2026-01-01"}', 422, "#/occurred_at"),
    ("POST", VIEWS, b'{"occurred_at": "2026-01-01T00:00:00"}', 422, "#/occurred_at"),
    ("POST", VIEWS, b'{"occurred_at": "0001-01-01T00:00:00+23:59"}', 422, "#/occurred_at"),
    ("POST", VIEWS, b'{"occurred_at": "9999-12-31T23:59:59-23:59"}', 422, "#/occurred_at"),
    ("POST", VIEWS, b'{"occurred_at": "2099-12-31T23:59:59Z"}', 422, "#/occurred_at"),
    ("POST", VIEWS, b'{"session_id": ["a"]}', 422, "#/session_id"),
    ("PUT", POSITION, b"{}", 422, "#/position_seconds"),
    ("PUT", POSITION, b'{"position_seconds": "7"}', 422, "#/position_seconds"),
    ("PUT", POSITION, b'{"position_seconds": false}', 422, "#/position_seconds"),
    ("PUT", POSITION, b'{"position_seconds": -1}', 422, "#/position_seconds"),
    ("PUT", POSITION, b'{"position_seconds": 1e400}', 400, "#"),
    ("PUT", POSITION, b'{"position_seconds": 20, "duration_seconds": 10}', 422, "#/position_seconds"),
    ("PUT", POSITION, b'{"position_seconds": 1, "duration_seconds": "x"}', 422, "#/duration_seconds"),
    ("PUT", POSITION, b'{"position_seconds": 1, "state": "flying"}', 422, "#/state"),
    ("PUT", POSITION, b'{"position_seconds": 1, "session_id": "\xc3\xa9"}', 422, "#/session_id"),
    ("PUT", POSITION, b'{"position_seconds": 1, "occurred_at": "2099-01-01T00:00:00Z"}', 422, "#/occurred_at"),
    ("POST", "/api/multipart/initiate", b'{"filename": "a.mp4", "title": "x", "content_type": "movie"}', 422, "#/size"),
    ("POST", "/api/multipart/complete", b"{}", 422, "#/upload_id"),
    ("POST", "/api/multipart/abort", b'{"upload_id": 1}', 422, "#/upload_id"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "pointer"), BAD_BODIES)
async def test_a_bad_body_is_refused_with_its_field_named_and_nothing_is_appended(
    gateway: Gateway, video: str, method: str, path: str, body: bytes, status: int, pointer: str
) -> None:
    before = await ends(gateway)
    answered, problem = await told(
        gateway, method, path.format(video=video), data=body, headers={"Content-Type": JSON, "X-Viewer-Id": "ann"}
    )
    assert (answered, problem["errors"][0]["pointer"]) == (status, pointer), problem
    assert await ends(gateway) == before


BAD_QUERIES = [
    ("/api/analytics/top?k=0", "k"),
    ("/api/analytics/top?k=1001", "k"),
    ("/api/analytics/top?k=1.0", "k"),
    ("/api/analytics/top?k=", "k"),
    ("/api/analytics/top?timeframe=decade", "timeframe"),
    ("/api/analytics/top?timeframe=day&timeframe=week", "timeframe"),
    ("/api/analytics/top/stream?k=x", "k"),
    ("/api/analytics/videos/{video}/history?bucket=minute", "bucket"),
    ("/api/analytics/videos/{video}/history?from=yesterday", "from"),
    ("/api/analytics/videos/{video}/history?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
    ("/api/analytics/videos/{video}/stats?after=AAAA", "after"),
    ("/api/videos?limit=101", "limit"),
    ("/api/videos?offset=-1", "offset"),
    ("/api/videos?content_type=opera", "content_type"),
    ("/api/videos?genre=%00", "genre"),
    ("/api/videos/search?query=%00", "query"),
    ("/api/videos/search?limit=0", "limit"),
    ("/api/videos/suggest?limit=99", "limit"),
    ("/api/videos/{video}?after=%F0%9F%8E%AC", "after"),
    ("/api/videos/{video}?stale=maybe", "stale"),
    ("/api/videos/{video}/position?after=x", "after"),
    ("/api/history/continue?limit=0", "limit"),
    ("/api/history/completed?after=" + "A" * 3_000, "after"),
    ("/api/multipart/list-parts", "upload_id"),
    ("/api/multipart/list-parts?upload_id=x", "upload_id"),
]


@pytest.mark.parametrize(("path", "parameter"), BAD_QUERIES)
async def test_a_bad_parameter_is_named(gateway: Gateway, video: str, path: str, parameter: str) -> None:
    status, problem = await told(gateway, "GET", path.format(video=video), headers={"X-Viewer-Id": "ann"})
    assert (status, problem["errors"][0]["parameter"]) == (400, parameter), problem


async def test_a_parameter_out_of_its_choices_is_told_what_they_are(gateway: Gateway) -> None:
    _, problem = await told(gateway, "GET", "/api/analytics/top?timeframe=decade")
    assert all(word in problem["detail"] for word in ("hour", "day", "week", "month", "year", "all_time"))


async def test_several_bad_fields_are_named_at_once(gateway: Gateway, video: str) -> None:
    body = {"position_seconds": -1, "duration_seconds": "x", "state": "flying"}
    _, problem = await told(gateway, "PUT", POSITION.format(video=video), json=body)
    assert {e["pointer"] for e in problem["errors"]} == {"#/position_seconds", "#/duration_seconds", "#/state"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/videos/unknown", 404),
        ("GET", "/api/videos/a%00b", 404),
        ("GET", "/api/videos/" + "x" * 65, 404),
        ("DELETE", "/api/videos/unknown", 404),
        ("GET", "/api/videos/unknown/position", 404),
        ("GET", "/api/analytics/videos/unknown/stats", 404),
        ("GET", "/api/videos/unknown/stream", 404),
        ("GET", "/api/videos/unknown/hls/master.m3u8", 404),
        ("PATCH", "/api/videos", 405),
        ("DELETE", "/health", 405),
    ],
)
async def test_what_is_not_there_is_a_problem_document(gateway: Gateway, method: str, path: str, status: int) -> None:
    assert (await told(gateway, method, path))[0] == status


async def test_a_method_that_is_not_answered_is_told_which_are(gateway: Gateway) -> None:
    async with gateway.http.put("/api/videos") as answer:
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_another_media_type_is_refused_by_name(gateway: Gateway, video: str, content_type: str) -> None:
    status, problem = await told(
        gateway, "POST", VIEWS.format(video=video), data=b"{}", headers={"Content-Type": content_type}
    )
    assert (status, problem["errors"][0]["header"]) == (415, "Content-Type")


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_beyond_the_limit_is_refused(gateway: Gateway, video: str, is_chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 4_096

    data: Any = pieces() if is_chunked else b" " * 70_000
    status, _ = await told(gateway, "POST", VIEWS.format(video=video), data=data, headers={"Content-Type": JSON})
    assert status == 413


async def test_a_body_that_is_not_encoded_as_it_says_is_refused(gateway: Gateway, video: str) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    status, _ = await told(gateway, "POST", VIEWS.format(video=video), data=b"{}", headers=headers)
    assert status == 400


@pytest.mark.parametrize("viewer", ["", "a b", "x" * 65, "ann@example.org", "é"])
async def test_a_bad_viewer_is_refused_and_nothing_is_appended(gateway: Gateway, video: str, viewer: str) -> None:
    before = await ends(gateway)
    status, problem = await told(gateway, "POST", VIEWS.format(video=video), json={}, headers={"X-Viewer-Id": viewer})
    assert (status, problem["errors"][0]["header"]) == (400, "X-Viewer-Id")
    assert await ends(gateway) == before


async def test_unknown_fields_are_ignored(gateway: Gateway, video: str) -> None:
    assert (await told(gateway, "POST", VIEWS.format(video=video), json={"colour": "red"}))[0] == 202


async def test_every_answer_carries_the_requests_id(gateway: Gateway) -> None:
    async with gateway.http.get("/live", headers={"X-Request-Id": "mine"}) as answer:
        assert answer.headers["X-Request-Id"] == "mine"
    async with gateway.http.get("/nowhere") as answer:
        assert answer.headers["X-Request-Id"]


async def test_a_view_lies_in_the_log_where_the_answer_says(gateway: Gateway, video: str) -> None:
    status, answer = await told(gateway, "POST", VIEWS.format(video=video), json={"watched_seconds": 40})
    assert status == 202
    (found,) = [d for d in await gateway.events("views") if d.event.key == answer["view_id"]]
    event = as_model(found.event)
    assert isinstance(event, VideoViewed)
    assert (event.video_id, event.watched_seconds, event.viewer_id) == (video, 40, None)
    assert answer["event"] == {"id": found.recorded.event_id, **found.recorded.place._asdict()}


async def test_a_view_sent_again_is_the_same_event(gateway: Gateway, video: str) -> None:
    _, first = await told(gateway, "POST", VIEWS.format(video=video), json={})
    again = {"view_id": first["view_id"]}
    await told(gateway, "POST", VIEWS.format(video=video), json=again)
    one, other = [d for d in await gateway.events("views") if d.event.key == first["view_id"]]
    assert one.event == other.event
    assert one.recorded.event_id == other.recorded.event_id


async def test_a_view_of_an_unknown_or_deleted_film_is_refused(gateway: Gateway, video: str) -> None:
    await gateway.know(deleted(video))
    before = await ends(gateway)
    assert (await told(gateway, "POST", VIEWS.format(video=video), json={}))[0] == 404
    assert (await told(gateway, "POST", VIEWS.format(video="unknown"), json={}))[0] == 404
    assert await ends(gateway) == before


async def test_the_log_knows_a_viewer_by_pseudonym_alone(gateway: Gateway, video: str) -> None:
    ann = {"X-Viewer-Id": f"ann-{uuid.uuid4().hex}"}
    _, view = await told(gateway, "POST", VIEWS.format(video=video), json={}, headers=ann)
    _, position = await told(gateway, "PUT", POSITION.format(video=video), json={"position_seconds": 7}, headers=ann)
    _, known = await told(gateway, "GET", "/api/viewer", headers=ann)
    viewed = [d for d in await gateway.events("views") if d.event.key == view["view_id"]]
    stopped = [d for d in await gateway.events("positions") if d.recorded.event_id == position["event"]["id"]]
    events = [as_model(d.event) for d in (*viewed, *stopped)]
    seen = {event.viewer_id for event in events if isinstance(event, VideoViewed | PositionUpdated)}
    assert seen == {known["viewer_id"]}
    assert ann["X-Viewer-Id"] not in known["viewer_id"]


async def test_who_says_nothing_is_known_again_by_a_cookie(gateway: Gateway) -> None:
    async with gateway.http.get("/api/viewer") as answer:
        first, cookie = await answer.json(), answer.cookies[COOKIE]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    again = await told(gateway, "GET", "/api/viewer", cookies={COOKIE: cookie.value})
    assert again == (200, first)


async def test_a_cookie_that_was_made_up_is_replaced(gateway: Gateway) -> None:
    gateway.http.session.cookie_jar.clear()
    async with gateway.http.get("/api/viewer") as answer:
        first, cookie = await answer.json(), answer.cookies[COOKIE].value
    gateway.http.session.cookie_jar.clear()
    forged = cookie[:-6] + ("AAAAAA" if not cookie.endswith("AAAAAA") else "BBBBBB")
    async with gateway.http.get("/api/viewer", cookies={COOKIE: forged}) as answer:
        assert (await answer.json()) != first
        assert COOKIE in answer.cookies


async def test_a_header_never_speaks_for_a_cookie(gateway: Gateway) -> None:
    """Whoever reads a cookie's key cannot send it as a header and be its owner."""
    gateway.http.session.cookie_jar.clear()
    async with gateway.http.get("/api/viewer") as answer:
        owner, cookie = await answer.json(), answer.cookies[COOKIE].value
    gateway.http.session.cookie_jar.clear()
    key = cookie.split(".")[1]
    assert (await told(gateway, "GET", "/api/viewer", headers={"X-Viewer-Id": key}))[1] != owner


async def test_history_asks_who_is_watching(gateway: Gateway) -> None:
    gateway.http.session.cookie_jar.clear()
    status, problem = await told(gateway, "GET", "/api/history/continue")
    assert (status, problem["errors"][0]["header"]) == (401, "X-Viewer-Id")


async def test_a_position_beyond_the_films_end_by_a_moment_is_taken(gateway: Gateway, video: str) -> None:
    body = {"position_seconds": 10.4, "duration_seconds": 10}
    assert (await told(gateway, "PUT", POSITION.format(video=video), json=body))[0] == 202


async def test_deleting_twice_is_one_event_and_then_there_is_nothing(gateway: Gateway, video: str) -> None:
    first = await told(gateway, "DELETE", f"/api/videos/{video}")
    second = await told(gateway, "DELETE", f"/api/videos/{video}")
    assert first[0] == second[0] == 202
    assert first[1]["event"]["id"] == second[1]["event"]["id"]
    await gateway.know(deleted(video))
    assert (await told(gateway, "GET", f"/api/videos/{video}"))[0] == 404
    assert (await told(gateway, "DELETE", f"/api/videos/{video}"))[0] == 404


async def test_a_write_that_was_not_acknowledged_gives_its_ids_and_can_be_sent_again(
    gateway: Gateway, video: str
) -> None:
    gateway.break_log()
    async with gateway.http.post(VIEWS.format(video=video), json={}) as answer:
        problem = json.loads(await answer.read())
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
    gateway.mend_log()
    again = {name: problem[name] for name in ("view_id", "occurred_at")}
    status, view = await told(gateway, "POST", VIEWS.format(video=video), json=again)
    assert (status, view["view_id"]) == (202, problem["view_id"])


async def test_a_view_is_taken_while_the_catalogue_cannot_be_asked(ready: Settings) -> None:
    async with gateway_on(ready.model_copy(update={"postgres_dsn": SecretStr(NOBODY)})) as gateway:
        assert (await told(gateway, "POST", VIEWS.format(video="any"), json={}))[0] == 202


async def test_a_server_that_is_away_stops_no_start_and_is_told(ready: Settings) -> None:
    async with gateway_on(ready.model_copy(update={"postgres_dsn": SecretStr(NOBODY)})) as gateway:
        async with gateway.http.get("/api/videos/any") as answer:
            assert answer.status == 503
            assert answer.content_type == "application/problem+json"
            assert int(answer.headers["Retry-After"]) >= 1
        async with gateway.http.get("/health") as answer:
            health = await answer.json()
            assert (answer.status, health["checks"]["postgres"]["status"]) == (503, "down")
        async with gateway.http.get("/live") as answer:
            assert answer.status == 200


async def test_health_tells_each_server_with_its_latency(gateway: Gateway) -> None:
    status, health = await told(gateway, "GET", "/health")
    assert status == 200
    assert set(health["checks"]) == {"kafka", "postgres", "redis", "elasticsearch", "storage"}
    assert all(check["latency_ms"] >= 0 for check in health["checks"].values())


async def written(gateway: Gateway, *, on_partition_0: bool) -> str:
    """The token of an event that lies on `videos/0`, where `know` moves the checkpoint, or on another partition, which nobody folds."""
    while True:
        place = (await gateway.http.app[LOG].append(announced(str(uuid.uuid4())))).place
        if (place.partition == 0) is on_partition_0:
            return token_of(gateway, place)


def token_of(gateway: Gateway, place: Place) -> str:
    return write_token([place], gateway.settings.secret_key.get_secret_value())


async def test_a_read_waits_for_the_write_that_it_names(gateway: Gateway, video: str) -> None:
    token = await written(gateway, on_partition_0=True)
    read = asyncio.create_task(told(gateway, "GET", f"/api/videos?after={token}"))
    # Each event that is folded moves the checkpoint by one.
    while not read.done():
        await gateway.know(uploaded(video))
    assert (await read)[0] == 200


async def test_a_write_that_is_not_folded_in_time_is_503_or_stale_where_asked(gateway: Gateway, video: str) -> None:
    path = f"/api/videos?after={await written(gateway, on_partition_0=False)}"
    fresh, stale = await asyncio.gather(told(gateway, "GET", path), told(gateway, "GET", f"{path}&stale=ok"))
    assert (fresh[0], stale[0]) == (503, 200)
    assert stale[1]["total"] >= 1


@pytest.mark.parametrize("place", [Place("videos", 0, 10**12), Place("videos", 10**6, 0)])
async def test_a_place_that_the_log_does_not_hold_is_refused(gateway: Gateway, place: Place) -> None:
    status, problem = await told(gateway, "GET", f"/api/videos?after={token_of(gateway, place)}")
    assert (status, problem["errors"][0]["parameter"]) == (400, "after")


async def test_a_write_that_is_no_business_of_who_answers_is_not_waited_for(gateway: Gateway) -> None:
    token = token_of(gateway, Place("views", 0, 10**12))
    assert (await told(gateway, "GET", f"/api/videos?after={token}"))[0] == 200


async def test_a_token_that_another_system_signed_is_refused(gateway: Gateway) -> None:
    token = write_token([Place("videos", 0, 0)], "another system's secret")
    assert (await told(gateway, "GET", f"/api/videos?after={token}"))[0] == 400
