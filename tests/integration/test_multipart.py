"""Uploads in parts, through HTTP, on a real store and a real log."""

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ClientError

from compose.settings import Settings
from gateway.tickets import read_ticket, write_ticket
from schemas.events import UploadAborted, UploadInitiated, VideoUploaded
from tests.uploading import Gateway, gateway_on

pytestmark = pytest.mark.usefixtures("kafka", "postgres", "s3")

MIB = 2**20
PART = 5 * MIB
FILM = os.urandom(2 * PART + 1_000)
PARTS = [FILM[:PART], FILM[PART : 2 * PART], FILM[2 * PART :]]
MOVIE = {"title": "Metropolis", "content_type": "movie", "filename": "metropolis.mkv", "size": len(FILM)}

Told = tuple[int, dict[str, Any]]


async def post(gateway: Gateway, path: str, body: dict[str, Any]) -> Told:
    async with gateway.http.post(f"/api/multipart/{path}", json=body) as answer:
        return answer.status, await answer.json(content_type=None) if answer.status != 204 else {}


async def put(gateway: Gateway, upload_id: str, number: object, data: Any, **headers: str) -> Told:
    query = {"upload_id": upload_id, "part_number": str(number)}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gateway.http.post("/api/multipart/part", params=query, data=data, headers=sent) as answer:
        return answer.status, await answer.json(content_type=None)


async def listed(gateway: Gateway, upload_id: str) -> Told:
    async with gateway.http.get("/api/multipart/list-parts", params={"upload_id": upload_id}) as answer:
        return answer.status, await answer.json(content_type=None)


async def begun(gateway: Gateway, **changed: Any) -> str:
    status, told = await post(gateway, "initiate", MOVIE | changed)
    assert status == 201, told
    upload_id: str = told["upload_id"]
    return upload_id


async def filled(gateway: Gateway) -> str:
    upload_id = await begun(gateway)
    answers = await asyncio.gather(*(put(gateway, upload_id, n, PARTS[n - 1]) for n in (3, 1, 2)))
    assert [status for status, _ in answers] == [200, 200, 200]
    return upload_id


def video_of(gateway: Gateway, upload_id: str) -> str:
    return read_ticket(upload_id, gateway.settings.secret_key.get_secret_value()).video_id


async def test_parts_sent_side_by_side_in_any_order_become_the_film(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    status, told = await post(gateway, "complete", {"upload_id": upload_id})
    assert (status, told["status"]) == (202, "PENDING")
    announced, done = await gateway.events_of(told["video_id"])
    assert isinstance(announced.event, UploadInitiated)
    assert isinstance(done.event, VideoUploaded)
    assert (done.event.size, done.event.media_type) == (len(FILM), "video/x-matroska")
    assert await gateway.storage.read_bytes(done.event.object_key) == FILM


async def test_initiate_tells_how_to_cut_the_film(gateway: Gateway) -> None:
    status, told = await post(gateway, "initiate", MOVIE)
    assert (status, told["part_size"], told["total_parts"]) == (201, PART, 3)
    assert told["event"]["topic"] == "videos"


async def test_complete_asked_again_gives_the_same_answer_and_appends_nothing(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    first = await post(gateway, "complete", {"upload_id": upload_id})
    assert await post(gateway, "complete", {"upload_id": upload_id}) == first
    assert len(await gateway.events_of(first[1]["video_id"])) == 2


async def test_two_completes_side_by_side_give_one_answer_and_one_event_id(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    one, other = await asyncio.gather(*(post(gateway, "complete", {"upload_id": upload_id}) for _ in range(2)))
    assert one[0] == other[0] == 202
    assert one[1] == other[1]
    appended = await gateway.events_of(one[1]["video_id"])
    assert len({decoded.recorded.event_id for decoded in appended}) == 2


async def test_any_process_of_the_gateway_takes_any_call(gateway: Gateway, ready: Settings) -> None:
    upload_id = await begun(gateway)
    async with gateway_on(ready) as other:
        for number, part in enumerate(PARTS, start=1):
            assert (await put(other if number == 2 else gateway, upload_id, number, part))[0] == 200
        assert (await post(other, "complete", {"upload_id": upload_id}))[0] == 202


async def test_while_the_log_is_down_complete_tells_the_ids_and_finishes_later(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    gateway.break_log()
    status, problem = await post(gateway, "complete", {"upload_id": upload_id})
    assert (status, problem["upload_id"]) == (503, upload_id)
    gateway.mend_log()
    status, told = await post(gateway, "complete", {"upload_id": upload_id})
    assert (status, told["video_id"]) == (202, problem["video_id"])
    assert len(await gateway.events_of(told["video_id"])) == 2


async def test_while_the_log_is_down_no_upload_is_begun(gateway: Gateway) -> None:
    keys = await gateway.keys()
    gateway.break_log()
    assert (await post(gateway, "initiate", MOVIE))[0] == 503
    assert await gateway.keys() == keys


async def test_missing_parts_are_named(gateway: Gateway) -> None:
    upload_id = await begun(gateway)
    await put(gateway, upload_id, 2, PARTS[1])
    status, problem = await post(gateway, "complete", {"upload_id": upload_id})
    assert (status, problem["missing"]) == (409, [1, 3])
    assert len(await gateway.events_of(video_of(gateway, upload_id))) == 1


async def test_a_part_sent_again_replaces_the_first(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    other = os.urandom(1_000)
    etags = [part["etag"] for part in (await listed(gateway, upload_id))[1]["parts"][:2]]
    etags.append((await put(gateway, upload_id, 3, other))[1]["etag"])
    named = [{"part_number": number, "etag": etag} for number, etag in enumerate(etags, start=1)]
    status, told = await post(gateway, "complete", {"upload_id": upload_id, "parts": named})
    assert status == 202, told
    _, done = await gateway.events_of(told["video_id"])
    assert isinstance(done.event, VideoUploaded)
    assert await gateway.storage.read_bytes(done.event.object_key) == PARTS[0] + PARTS[1] + other


async def test_an_etag_that_is_not_there_completes_nothing(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    named = [{"part_number": number, "etag": "0" * 32} for number in (1, 2, 3)]
    status, problem = await post(gateway, "complete", {"upload_id": upload_id, "parts": named})
    assert (status, problem["errors"][0]["pointer"]) == (409, "#/parts")


async def test_the_list_says_what_has_arrived(gateway: Gateway) -> None:
    upload_id = await begun(gateway)
    _, sent = await put(gateway, upload_id, 3, PARTS[2])
    status, told = await listed(gateway, upload_id)
    assert (status, told["parts"]) == (200, [sent])
    assert (told["received_bytes"], told["total_parts"]) == (1_000, 3)


@pytest.mark.parametrize(
    ("number", "size", "status"), [(1, PART + 1, 413), (1, PART - 1, 400), (3, 1_001, 413), (3, 0, 400)]
)
async def test_a_part_of_another_size_is_refused(gateway: Gateway, number: int, size: int, status: int) -> None:
    upload_id = await begun(gateway)
    assert (await put(gateway, upload_id, number, bytes(size)))[0] == status
    assert (await listed(gateway, upload_id))[1]["parts"] == []


async def test_a_part_without_its_length_is_refused(gateway: Gateway) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield PARTS[2]

    upload_id = await begun(gateway)
    assert (await put(gateway, upload_id, 3, chunks()))[0] == 411


@pytest.mark.parametrize("number", ["0", "4", "10001", "-1", "1.0", " 1", "x", "", "１"])
async def test_a_number_that_no_part_has_is_named(gateway: Gateway, number: str) -> None:
    status, problem = await put(gateway, await begun(gateway), number, PARTS[2])
    assert (status, problem["errors"][0]["parameter"]) == (400, "part_number")


@pytest.mark.parametrize(("name", "kind"), [("Content-MD5", "md5"), ("x-amz-checksum-sha256", "sha256")])
async def test_a_part_is_compared_with_its_checksum(gateway: Gateway, name: str, kind: str) -> None:
    upload_id = await begun(gateway)
    wrong, right = (base64.b64encode(hashlib.new(kind, data).digest()).decode() for data in (b"other", PARTS[2]))
    for checksum in (wrong, "no checksum"):
        status, problem = await put(gateway, upload_id, 3, PARTS[2], **{name: checksum})
        assert (status, problem["errors"][0]["header"]) == (400, name)
    assert (await listed(gateway, upload_id))[1]["parts"] == []
    assert (await put(gateway, upload_id, 3, PARTS[2], **{name: right}))[0] == 200


async def test_a_client_that_leaves_in_the_middle_of_a_part_leaves_nothing_wrong(gateway: Gateway) -> None:
    upload_id = await begun(gateway)
    reached = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield PARTS[0][: 3 * MIB]
        reached.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(put(gateway, upload_id, 1, half(), Content_Length=str(PART)))
    await reached.wait()
    sending.cancel()
    with suppress(asyncio.CancelledError, ClientError):
        await sending
    for number, part in enumerate(PARTS, start=1):
        assert (await put(gateway, upload_id, number, part))[0] == 200
    status, told = await post(gateway, "complete", {"upload_id": upload_id})
    assert status == 202, told
    _, done = await gateway.events_of(told["video_id"])
    assert isinstance(done.event, VideoUploaded)
    assert await gateway.storage.read_bytes(done.event.object_key) == FILM


async def test_an_aborted_upload_leaves_nothing_and_takes_nothing(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    video_id = video_of(gateway, upload_id)
    assert [(await post(gateway, "abort", {"upload_id": upload_id}))[0] for _ in range(2)] == [204, 204]
    appended = await gateway.events_of(video_id)
    assert isinstance(appended[1].event, UploadAborted)
    assert len({decoded.recorded.event_id for decoded in appended}) == 2
    assert await gateway.keys(video_id) == []
    assert (await put(gateway, upload_id, 3, PARTS[2]))[0] == 404
    assert (await listed(gateway, upload_id))[0] == 404
    assert (await post(gateway, "complete", {"upload_id": upload_id}))[0] == 404


async def test_a_film_that_is_complete_cannot_be_aborted(gateway: Gateway) -> None:
    upload_id = await filled(gateway)
    _, told = await post(gateway, "complete", {"upload_id": upload_id})
    assert (await post(gateway, "abort", {"upload_id": upload_id}))[0] == 409
    assert (await put(gateway, upload_id, 3, PARTS[2]))[0] == 409
    assert len(await gateway.events_of(told["video_id"])) == 2


@pytest.mark.parametrize("wrong", ["none of ours", "a.b.c", "x" * 3_000])
async def test_a_wrong_upload_id_is_named(gateway: Gateway, wrong: str) -> None:
    for status, problem in (await put(gateway, wrong, 1, PARTS[2]), await listed(gateway, wrong)):
        assert (status, problem["errors"][0]["parameter"]) == (400, "upload_id")
    for path in ("complete", "abort"):
        status, problem = await post(gateway, path, {"upload_id": wrong})
        assert status in (400, 422)
        assert problem["errors"][0]["pointer"] == "#/upload_id"


async def test_an_expired_upload_takes_no_part(gateway: Gateway) -> None:
    secret = gateway.settings.secret_key.get_secret_value()
    ticket = read_ticket(await begun(gateway), secret)
    expired = write_ticket(ticket._replace(expires_at=int(time.time()) - 1), secret)
    assert (await put(gateway, expired, 3, PARTS[2]))[0] == 410


@pytest.mark.parametrize(
    ("changed", "status", "named"),
    [
        ({"size": 0}, 422, "size"),
        ({"size": "5"}, 422, "size"),
        ({"size": 5.0}, 422, "size"),
        ({"size": 2**50}, 413, "size"),
        ({"filename": ""}, 422, "filename"),
        ({"title": " "}, 422, "title"),
        ({"content_type": "episode"}, 422, "show_title"),
        ({"release_year": True}, 422, "release_year"),
    ],
)
async def test_bad_input_is_named_and_begins_nothing(
    gateway: Gateway, changed: dict[str, Any], status: int, named: str
) -> None:
    events = len(await gateway.events())
    answered, problem = await post(gateway, "initiate", MOVIE | changed)
    assert answered == status
    assert any(named in error["pointer"] + error["detail"] for error in problem["errors"]), problem
    assert len(await gateway.events()) == events
