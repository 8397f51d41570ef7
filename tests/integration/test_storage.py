"""The store as its callers meet it, against a real S3."""

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from pydantic import HttpUrl

from compose.settings import Settings
from compose.storage import (
    ChecksumMismatch,
    NoSuchObject,
    NoSuchUpload,
    ObjectExists,
    Part,
    PartsChanged,
    Storage,
    StorageUnavailable,
    WrongLength,
    open_storage,
)

pytestmark = pytest.mark.usefixtures("s3")

MIB = 2**20
KEY = "videos/v1/source/film"
FILM = os.urandom(5 * MIB)


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    async with open_storage(settings) as storage:
        await storage.ensure_bucket()
        yield storage


async def chunks(data: bytes, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def broken(data: bytes) -> AsyncIterator[bytes]:
    async for chunk in chunks(data):
        yield chunk
    raise ConnectionResetError("the client is gone")


def base64_of(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


async def test_the_bucket_is_created_once(storage: Storage) -> None:
    await storage.ensure_bucket()
    await storage.ping()


@pytest.mark.parametrize("length", [None, len(FILM)])
async def test_a_stream_comes_back_as_it_went_in(storage: Storage, length: int | None) -> None:
    assert await storage.put_stream(KEY, chunks(FILM), length, content_type="video/mp4") == len(FILM)
    assert await storage.read_bytes(KEY) == FILM
    info = await storage.head(KEY)
    assert info is not None
    assert (info.size, info.content_type) == (len(FILM), "video/mp4")


@pytest.mark.parametrize("size", [0, 8 * MIB, 8 * MIB + 1])
async def test_a_stream_of_unknown_length_may_end_at_the_border_of_a_piece(storage: Storage, size: int) -> None:
    data = os.urandom(size)
    assert await storage.put_stream(KEY, chunks(data)) == size
    assert await storage.read_bytes(KEY) == data


async def test_a_range_holds_its_bytes_and_no_others(storage: Storage) -> None:
    await storage.put_bytes(KEY, FILM)
    async with aclosing(storage.read(KEY, 70_000, 140_001)) as found:
        assert b"".join([chunk async for chunk in found]) == FILM[70_000:140_001]


@pytest.mark.parametrize("length", [None, len(FILM) + MIB])
async def test_a_source_that_breaks_leaves_nothing_and_is_heard(storage: Storage, length: int | None) -> None:
    with pytest.raises(ConnectionResetError):
        await storage.put_stream(KEY, broken(FILM), length)
    assert await storage.list("") == []


@pytest.mark.parametrize("wrong", [-1, 1])
async def test_a_body_of_another_length_than_announced_leaves_nothing(storage: Storage, wrong: int) -> None:
    with pytest.raises(WrongLength):
        await storage.put_stream(KEY, chunks(FILM), len(FILM) + wrong)
    assert await storage.head(KEY) is None


async def test_a_part_sent_again_replaces_the_first(storage: Storage) -> None:
    upload_id = await storage.start_multipart(KEY)
    await storage.put_part(KEY, upload_id, 1, chunks(b"first"), 5)
    etag = await storage.put_part(KEY, upload_id, 1, chunks(b"second"), 6)
    [part] = await storage.list_parts(KEY, upload_id)
    assert part == Part(1, etag, 6) or part.is_ambiguous
    await storage.complete_multipart(KEY, upload_id, [Part(1, etag, 6)])
    assert await storage.read_bytes(KEY) == b"second"


@pytest.mark.parametrize("kind", ["content_md5", "sha256"])
async def test_a_part_with_a_wrong_checksum_is_refused_and_nothing_remains(storage: Storage, kind: str) -> None:
    upload_id = await storage.start_multipart(KEY)
    digest = base64_of({"content_md5": hashlib.md5, "sha256": hashlib.sha256}[kind](b"other").digest())
    with pytest.raises(ChecksumMismatch):
        await storage.put_part(KEY, upload_id, 1, chunks(FILM), len(FILM), **{kind: digest})
    assert await storage.list_parts(KEY, upload_id) == []


async def test_a_part_with_its_right_checksums_is_taken(storage: Storage) -> None:
    upload_id = await storage.start_multipart(KEY)
    md5, sha256 = hashlib.md5(FILM).digest(), hashlib.sha256(FILM).digest()
    etag = await storage.put_part(
        KEY, upload_id, 1, chunks(FILM), len(FILM), content_md5=base64_of(md5), sha256=base64_of(sha256)
    )
    assert await storage.list_parts(KEY, upload_id) == [Part(1, etag, len(FILM))]


async def test_parts_become_the_object_in_the_order_of_their_numbers(storage: Storage) -> None:
    upload_id = await storage.start_multipart(KEY)
    await storage.put_part(KEY, upload_id, 2, chunks(b"tail"), 4)
    await storage.put_part(KEY, upload_id, 1, chunks(FILM), len(FILM))
    await storage.complete_multipart(KEY, upload_id, await storage.list_parts(KEY, upload_id))
    assert await storage.read_bytes(KEY) == FILM + b"tail"


async def test_the_list_of_parts_goes_on_where_a_page_ends(storage: Storage) -> None:
    upload_id = await storage.start_multipart(KEY)
    for number in range(1, 8):
        await storage.put_part(KEY, upload_id, number, chunks(b"x"), 1)
    listed = await storage.list_parts(KEY, upload_id, page=3)
    assert [part.number for part in listed] == list(range(1, 8))


async def test_a_part_that_is_not_there_cannot_be_completed(storage: Storage) -> None:
    upload_id = await storage.start_multipart(KEY)
    await storage.put_part(KEY, upload_id, 1, chunks(b"there"), 5)
    with pytest.raises(PartsChanged):
        await storage.complete_multipart(KEY, upload_id, [Part(1, "0" * 32, 5)])


async def test_an_upload_just_begun_has_no_parts(storage: Storage) -> None:
    assert await storage.list_parts(KEY, await storage.start_multipart(KEY)) == []


async def test_an_aborted_upload_takes_no_part_and_cannot_be_completed(storage: Storage) -> None:
    upload_id = await storage.start_multipart(KEY)
    etag = await storage.put_part(KEY, upload_id, 1, chunks(b"part"), 4)
    await storage.abort_multipart(KEY, upload_id)
    with pytest.raises(NoSuchUpload):
        await storage.put_part(KEY, upload_id, 1, chunks(b"part"), 4)
    with pytest.raises(NoSuchUpload):
        await storage.complete_multipart(KEY, upload_id, [Part(1, etag, 4)])


async def test_an_object_is_created_once_where_it_must_not_be_overwritten(storage: Storage) -> None:
    await storage.put_bytes(KEY, b"first", overwrite=False)
    with pytest.raises(ObjectExists):
        await storage.put_bytes(KEY, b"second", overwrite=False)
    assert await storage.read_bytes(KEY) == b"first"


async def test_deleting_a_folder_takes_its_objects_and_unfinished_uploads_and_no_others(storage: Storage) -> None:
    upload_id = await storage.start_multipart("videos/v1/source/begun")
    await storage.put_bytes("videos/v1/hls/a", b"1")
    await storage.put_bytes("videos/v10/hls/a", b"1")
    assert await storage.delete_prefix("videos/v1/") == 1
    assert [found.key for found in await storage.list("videos/")] == ["videos/v10/hls/a"]
    with pytest.raises(NoSuchUpload):
        await storage.list_parts("videos/v1/source/begun", upload_id)


async def test_a_file_goes_in_and_comes_out(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(FILM)
    await storage.put_file(KEY, tmp_path / "in", content_type="video/mp4", cache_control="no-store")
    await storage.get_to_file(KEY, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == FILM


async def test_an_object_that_is_not_there_leaves_no_file(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NoSuchObject):
        await storage.get_to_file(KEY, tmp_path / "out")
    assert os.listdir(tmp_path) == []


async def test_a_store_that_does_not_answer_is_unavailable(settings: Settings) -> None:
    nobody = settings.model_copy(update={"s3_endpoint": HttpUrl("http://127.0.0.1:9")})
    async with open_storage(nobody) as storage:
        for call in (storage.ping(), storage.head(KEY), storage.read_bytes(KEY), storage.put_bytes(KEY, b"x")):
            with pytest.raises(StorageUnavailable):
                await call
