"""Films on their way out, through HTTP, from a real store."""

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from aiohttp import ClientPayloadError
from uuid_utils import uuid7
from yarl import URL

from schemas.events import Event, UploadInitiated, Variant, VideoDeleted, VideoTranscoded, VideoUploaded
from tests.uploading import Gateway
from tests.working import until

pytestmark = pytest.mark.usefixtures("kafka", "postgres", "s3")

FILM = os.urandom(1_000_000)
SEGMENT = os.urandom(300_000)
MASTER = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n240p/playlist.m3u8\n"
PLAYLIST = b'#EXTM3U\n#EXT-X-MAP:URI="1-init.mp4"\n#EXTINF:4,\n1-00000.m4s\n#EXT-X-ENDLIST\n'
NOW = datetime.now(UTC)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def life_of(video_id: str) -> list[Event]:
    key, prefix = f"videos/{video_id}/source/s", f"videos/{video_id}/hls/1"
    return [
        UploadInitiated(
            video_id=video_id, occurred_at=NOW, content_type="movie", title="M", filename="m.mp4", object_key=key
        ),
        VideoUploaded(video_id=video_id, occurred_at=NOW, object_key=key, size=len(FILM), media_type="video/mp4"),
        VideoTranscoded(
            video_id=video_id,
            occurred_at=NOW,
            claim=1,
            prefix=prefix,
            duration_seconds=4.0,
            width=426,
            height=240,
            variants=[Variant(quality="240p", width=426, height=240, bandwidth=1)],
            thumbnail="thumbnail-1.jpg",
            storyboard="storyboard-1.vtt",
        ),
    ]


@pytest.fixture
async def video(gateway: Gateway) -> str:
    """A film that plays; its files are in the store."""
    video_id = str(uuid7())
    prefix = f"videos/{video_id}/hls/1"
    await gateway.storage.put_bytes(f"videos/{video_id}/source/s", FILM, content_type="video/mp4")
    files = {
        "master.m3u8": MASTER,
        "240p/playlist.m3u8": PLAYLIST,
        "240p/1-init.mp4": b"init",
        "240p/1-00000.m4s": SEGMENT,
        "thumbnail-1.jpg": b"jpeg",
        "storyboard-1.vtt": b"WEBVTT\n",
        "storyboard-1-001.jpg": b"sheet",
        "passport.json": b"{}",
    }
    for name, data in files.items():
        await gateway.storage.put_bytes(f"{prefix}/{name}", data)
    await gateway.know(*life_of(video_id))
    return video_id


async def ask(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    url = URL(str(gateway.http.make_url("/")) + path.lstrip("/"), encoded=True)
    async with gateway.http.session.request(method, url, headers=sent) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def test_the_film_comes_whole_as_it_was_sent(gateway: Gateway, video: str) -> None:
    answer = await ask(gateway, f"/api/videos/{video}/stream")
    assert (answer.status, answer.body) == (200, FILM)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(len(FILM))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=500000-", 500_000, 1_000_000),
        ("bytes=-7", 999_993, 1_000_000),
        ("bytes=9-9", 9, 10),
    ],
)
async def test_a_range_comes_with_its_place(gateway: Gateway, video: str, asked: str, start: int, end: int) -> None:
    answer = await ask(gateway, f"/api/videos/{video}/stream", Range=asked)
    assert (answer.status, answer.body) == (206, FILM[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(FILM)}"


async def test_a_range_outside_says_how_much_there_is(gateway: Gateway, video: str) -> None:
    answer = await ask(gateway, f"/api/videos/{video}/stream", Range=f"bytes={len(FILM)}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(FILM)}")
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_several_ranges_are_answered_with_the_whole(gateway: Gateway, video: str) -> None:
    answer = await ask(gateway, f"/api/videos/{video}/stream", Range="bytes=0-1,5-6")
    assert (answer.status, answer.body) == (200, FILM)


async def test_a_range_of_another_version_is_answered_with_the_whole(gateway: Gateway, video: str) -> None:
    path = f"/api/videos/{video}/stream"
    etag = (await ask(gateway, path, "HEAD")).headers["ETag"]
    assert (await ask(gateway, path, Range="bytes=0-9", If_Range=etag)).status == 206
    assert (await ask(gateway, path, Range="bytes=0-9", If_Range='"other"')).status == 200


async def test_head_tells_all_but_the_body(gateway: Gateway, video: str) -> None:
    answer = await ask(gateway, f"/api/videos/{video}/stream", "HEAD", Range="bytes=0-9")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(FILM))


@pytest.mark.parametrize("file", ["stream", "thumbnail", "hls/master.m3u8", "hls/240p/1-00000.m4s"])
async def test_what_the_client_has_is_not_sent_again(gateway: Gateway, video: str, file: str) -> None:
    path = f"/api/videos/{video}/{file}"
    etag = (await ask(gateway, path)).headers["ETag"]
    again = await ask(gateway, path, If_None_Match=etag)
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)


async def test_another_version_than_asked_for_is_refused(gateway: Gateway, video: str) -> None:
    assert (await ask(gateway, f"/api/videos/{video}/stream", If_Match='"other"')).status == 412


@pytest.mark.parametrize(
    ("file", "body", "content_type"),
    [
        ("hls/master.m3u8", MASTER, "application/vnd.apple.mpegurl"),
        ("hls/240p/playlist.m3u8", PLAYLIST, "application/vnd.apple.mpegurl"),
        ("hls/240p/1-init.mp4", b"init", "video/mp4"),
        ("hls/240p/1-00000.m4s", SEGMENT, "video/iso.segment"),
        ("thumbnail", b"jpeg", "image/jpeg"),
        ("storyboard", b"WEBVTT\n", "text/vtt; charset=utf-8"),
        ("storyboard-1-001.jpg", b"sheet", "image/jpeg"),
    ],
)
async def test_every_file_has_its_type_and_is_open_to_players_elsewhere(
    gateway: Gateway, video: str, file: str, body: bytes, content_type: str
) -> None:
    answer = await ask(gateway, f"/api/videos/{video}/{file}")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_segments_are_kept_for_ever_and_playlists_are_not(gateway: Gateway, video: str) -> None:
    segment = await ask(gateway, f"/api/videos/{video}/hls/240p/1-00000.m4s")
    assert segment.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (
        "immutable" not in (await ask(gateway, f"/api/videos/{video}/hls/240p/playlist.m3u8")).headers["Cache-Control"]
    )


@pytest.mark.parametrize(
    "file",
    [
        "hls/240p/..",
        "hls/240p/%2e%2e%2fmaster.m3u8",
        "hls/240p/..%2fpassport.json",
        "hls/240p/1-00000.m4s%00",
        "hls/240p/passport.json",
        "hls/240p/9-00000.m4s",
        "hls/480p/playlist.m3u8",
        "hls/%2e%2e/playlist.m3u8",
        "storyboard-..%2fx.jpg",
    ],
)
async def test_no_name_leads_to_anything_but_a_file_of_the_film(gateway: Gateway, video: str, file: str) -> None:
    assert (await ask(gateway, f"/api/videos/{video}/{file}")).status == 404


async def test_a_film_that_is_not_made_yet_streams_and_has_no_playlist(gateway: Gateway) -> None:
    video_id = str(uuid7())
    await gateway.storage.put_bytes(f"videos/{video_id}/source/s", FILM)
    announced, uploaded, _ = life_of(video_id)
    await gateway.know(announced)
    assert (await ask(gateway, f"/api/videos/{video_id}/stream")).status == 404
    await gateway.know(uploaded)
    assert (await ask(gateway, f"/api/videos/{video_id}/stream")).status == 200
    assert (await ask(gateway, f"/api/videos/{video_id}/hls/master.m3u8")).status == 404


async def test_a_film_plays_from_the_moment_it_is_known(gateway: Gateway) -> None:
    video_id = str(uuid7())
    await gateway.storage.put_bytes(f"videos/{video_id}/hls/1/master.m3u8", MASTER)
    announced, uploaded, transcoded = life_of(video_id)
    await gateway.know(announced, uploaded)
    assert (await ask(gateway, f"/api/videos/{video_id}/hls/master.m3u8")).status == 404
    await gateway.know(transcoded)
    assert (await ask(gateway, f"/api/videos/{video_id}/hls/master.m3u8")).status == 200


async def test_a_deleted_film_is_gone_within_two_seconds(gateway: Gateway, video: str) -> None:
    path = f"/api/videos/{video}/hls/240p/1-00000.m4s"
    assert (await ask(gateway, path)).status == 200
    await gateway.know(VideoDeleted(video_id=video, occurred_at=NOW))
    deadline = asyncio.get_running_loop().time() + 2
    while (await ask(gateway, path)).status != 404:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_an_object_that_is_gone_is_not_found_although_it_is_remembered(gateway: Gateway, video: str) -> None:
    path = f"/api/videos/{video}/hls/240p/1-00000.m4s"
    assert (await ask(gateway, path)).status == 200
    await gateway.storage.delete_prefix(f"videos/{video}/hls/")
    assert (await ask(gateway, path)).status == 404


async def test_an_unknown_film_is_not_found(gateway: Gateway) -> None:
    for file in ("stream", "hls/master.m3u8", "thumbnail", "storyboard"):
        assert (await ask(gateway, f"/api/videos/unknown/{file}")).status == 404


async def test_a_store_that_breaks_in_the_middle_never_lets_a_part_pass_for_the_whole(gateway: Gateway) -> None:
    video_id = str(uuid7())
    key = f"videos/{video_id}/source/s"
    await gateway.storage.put_bytes(key, bytes(30_000_000))
    await gateway.know(*life_of(video_id))
    async with gateway.http.get(f"/api/videos/{video_id}/stream") as answer:
        assert answer.status == 200
        # The connection to the store that is being read from is lost.
        [connection] = gateway.storage._reading.connector._acquired
        connection.transport.abort()
        with pytest.raises(ClientPayloadError):
            await answer.read()


async def test_a_client_that_leaves_is_no_error(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    video_id = str(uuid7())
    await gateway.storage.put_bytes(f"videos/{video_id}/source/s", bytes(30_000_000))
    await gateway.know(*life_of(video_id))
    async with gateway.http.get(f"/api/videos/{video_id}/stream") as answer:
        assert answer.status == 200
        answer.close()
    gone = 'entertainmenttime_http_requests_total{method="GET",route="/api/videos/{id}/stream",status="499"} 1.0'
    await until(lambda: told(gateway, gone))
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def told(gateway: Gateway, line: str) -> bool:
    return line in (await ask(gateway, "/metrics")).body.decode()
