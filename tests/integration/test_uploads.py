"""The simple upload, through HTTP, with what it leaves in the store and in the log."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ClientError

from compose.settings import Settings
from schemas.events import UploadInitiated, VideoUploaded
from tests.uploading import Gateway, form, gateway_on

pytestmark = pytest.mark.usefixtures("kafka", "postgres", "s3")

MIB = 2**20
FILM = os.urandom(300_000)
MOVIE = [("title", "Casablanca"), ("content_type", "movie")]
EPISODE = [("title", "Pilot"), ("content_type", "episode")]


async def upload(
    gateway: Gateway, fields: list[tuple[str, str]], film: bytes | None, **how: Any
) -> tuple[int, dict[str, Any]]:
    async with gateway.http.post("/api/videos/upload", data=form(fields, film, **how)) as answer:
        return answer.status, await answer.json(content_type=None)


@pytest.mark.parametrize("first", [False, True])
async def test_a_film_is_stored_and_announced_before_it_is_uploaded(gateway: Gateway, first: bool) -> None:
    fields = [*MOVIE, ("release_year", "1942"), ("genre", "")]
    async with gateway.http.post("/api/videos/upload", data=form(fields, FILM, first=first)) as answer:
        assert answer.status == 202
        told = await answer.json()
        assert answer.headers["Location"] == f"/api/videos/{told['video_id']}"
        assert answer.headers["X-Event-Position"]
    begun, done = await gateway.events_of(told["video_id"])
    assert isinstance(begun.event, UploadInitiated)
    assert isinstance(done.event, VideoUploaded)
    assert (begun.event.title, begun.event.release_year, begun.event.genre) == ("Casablanca", 1942, None)
    assert (done.event.size, done.event.media_type) == (len(FILM), "video/mp4")
    assert told["status"] == "PENDING"
    assert told["event"] == {"id": done.recorded.event_id, **done.recorded.place._asdict()}
    assert await gateway.storage.read_bytes(done.event.object_key) == FILM


async def test_a_film_of_several_pieces_arrives_whole(gateway: Gateway) -> None:
    film = os.urandom(20 * MIB + 1)
    status, told = await upload(gateway, MOVIE, film)
    assert status == 202
    _, done = await gateway.events_of(told["video_id"])
    assert isinstance(done.event, VideoUploaded)
    assert await gateway.storage.read_bytes(done.event.object_key) == film


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("fields", "film", "named"),
    [
        ([("content_type", "movie")], FILM, "title"),
        ([("title", "x")], FILM, "content_type"),
        ([("title", "x"), ("content_type", "opera")], FILM, "content_type"),
        ([("title", ""), ("content_type", "movie")], FILM, "title"),
        ([("title", "a\0b"), ("content_type", "movie")], FILM, "title"),
        ([("title", "x" * 301), ("content_type", "movie")], FILM, "title"),
        ([*MOVIE, ("description", "x" * 40_000)], FILM, "description"),
        ([*MOVIE, ("release_year", "1e3")], FILM, "release_year"),
        ([*MOVIE, ("release_year", "1942.0")], FILM, "release_year"),
        ([*MOVIE, ("release_year", " 1942")], FILM, "release_year"),
        ([*MOVIE, ("release_year", "٢٠٢٠")], FILM, "release_year"),
        ([*MOVIE, ("release_year", "9" * 5_000)], FILM, "release_year"),
        ([*MOVIE, ("release_year", "-1")], FILM, "release_year"),
        ([*MOVIE, ("title", "again")], FILM, "title"),
        (EPISODE, FILM, "show_title"),
        ([*EPISODE, ("show_title", "Dallas"), ("season_number", "1")], FILM, "episode_number"),
        (MOVIE, None, "file"),
        (MOVIE, b"", "file"),
    ],
)
async def test_bad_input_is_named_and_leaves_nothing(
    gateway: Gateway, fields: list[tuple[str, str]], film: bytes | None, named: str, first: bool
) -> None:
    keys, events = await gateway.keys(), len(await gateway.events())
    status, problem = await upload(gateway, fields, film, first=first)
    assert status == 422, problem
    assert any(named in error["pointer"] + error["detail"] for error in problem["errors"]), problem
    assert await gateway.keys() == keys
    assert len(await gateway.events()) == events


async def test_an_episode_with_its_show_is_taken(gateway: Gateway) -> None:
    fields = [*EPISODE, ("show_title", "Dallas"), ("season_number", "1"), ("episode_number", "0")]
    status, _ = await upload(gateway, fields, FILM)
    assert status == 202


async def test_a_second_film_in_the_form_is_refused_and_the_first_is_gone(gateway: Gateway) -> None:
    keys = await gateway.keys()
    data = form(MOVIE, FILM)
    data.add_field("file", FILM, filename="other.mp4")
    async with gateway.http.post("/api/videos/upload", data=data) as answer:
        assert answer.status == 422
        assert (await answer.json(content_type=None))["errors"][0]["pointer"] == "#/file"
    assert await gateway.keys() == keys


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"no form", "multipart/form-data", 400),
        (b"no form", "multipart/form-data; boundary=x", 400),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--\r\n", "multipart/form-data; boundary=x", 400),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nhalf a fi',
            "multipart/form-data; boundary=x",
            400,
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\n\xff\xfe\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            422,
        ),
    ],
)
async def test_a_malformed_form_is_a_problem_and_leaves_nothing(
    gateway: Gateway, body: bytes, content_type: str, status: int
) -> None:
    keys = await gateway.keys()
    async with gateway.http.post("/api/videos/upload", data=body, headers={"Content-Type": content_type}) as answer:
        assert answer.status == status, await answer.text()
        assert answer.content_type == "application/problem+json"
    assert await gateway.keys() == keys


async def test_a_film_beyond_the_limit_is_refused_before_it_is_read(ready: Settings) -> None:
    async with gateway_on(ready.model_copy(update={"upload_limit_bytes": 1_000})) as gateway:
        keys = await gateway.keys()
        assert (await upload(gateway, MOVIE, bytes(5 * MIB)))[0] == 413
        assert (await upload(gateway, MOVIE, bytes(1_001)))[0] == 413
        assert await gateway.keys() == keys


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(gateway: Gateway) -> None:
    keys, events = await gateway.keys(), len(await gateway.events())
    reached = asyncio.Event()

    async def film() -> AsyncIterator[bytes]:
        head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        yield head.encode() + bytes(20 * MIB)
        reached.set()
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(100 * MIB)}

    async def send() -> None:
        async with gateway.http.post("/api/videos/upload", data=film(), headers=headers):
            pass

    sending = asyncio.create_task(send())
    await reached.wait()
    sending.cancel()
    with suppress(asyncio.CancelledError, ClientError):
        await sending
    await gateway.until_nothing_is_begun()
    assert await gateway.keys() == keys
    assert len(await gateway.events()) == events


async def test_while_the_log_is_down_a_film_is_refused_with_its_id_and_leaves_nothing(gateway: Gateway) -> None:
    keys = await gateway.keys()
    gateway.break_log()
    async with gateway.http.post("/api/videos/upload", data=form(MOVIE, FILM)) as answer:
        problem = await answer.json(content_type=None)
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
    assert problem["video_id"]
    assert await gateway.keys() == keys
