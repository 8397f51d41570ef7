"""Objects: put, read a range, list, delete, and uploads in parts. The only module that speaks to S3.

Bytes stream through presigned requests and are never held, but for one piece of a stream whose length nobody knows. A put that fails, or
whose source fails, leaves nothing. What speaks XML goes through miniopy-async, whose calls for multipart uploads are underscore methods.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import AsyncIterablePayload
from miniopy_async.api import Minio
from miniopy_async.datatypes import Part as S3Part
from miniopy_async.deleteobjects import DeleteObject
from miniopy_async.error import MinioException, S3Error, ServerError
from yarl import URL

from compose.settings import Settings

CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 8 * 2**20  # of a stream of unknown length; times S3's 10,000 parts: 78 GiB
SINGLE_PUT_BYTES = 5 * 2**30  # S3's limit for one request

CONNECT_SECONDS = 5.0
CONTROL_SECONDS = 15.0
COMPLETE_SECONDS = 120.0  # S3 may copy the parts together before it answers
EARLIEST = datetime.fromtimestamp(0, UTC)
SILENCE_SECONDS = 30.0  # between two chunks of the store's answer
PING_SECONDS = 2.0

# Readers have their own pool: viewers on slow lines must not keep uploads from a connection.
READING_CONNECTIONS = 256
WRITING_CONNECTIONS = 64


class StorageUnavailable(Exception):
    """The store did not answer, or refused for a reason of its own; the same call may go through later."""

    retry_after_seconds = 2.0


class NoSuchObject(Exception):
    """There is no object with this key."""


class NoSuchUpload(Exception):
    """The multipart upload was completed, aborted, or never begun."""


class ObjectExists(Exception):
    """An object with this key is there already, and was left as it is."""


class ChecksumMismatch(Exception):
    """The bytes are not those that their checksum was made of; nothing was stored."""


class WrongLength(Exception):
    """The source had more or fewer bytes than announced; nothing was stored."""


class PartsChanged(Exception):
    """A part named for completion is missing, or was sent again meanwhile."""


class ObjectInfo(NamedTuple):
    """`etag` without its quotation marks."""

    key: str
    size: int
    etag: str
    content_type: str
    modified_at: datetime


class Part(NamedTuple):
    """One part that lies in the store. `etag` without its quotation marks.

    `is_ambiguous` when it was sent twice with other bytes within a second, and the store (SeaweedFS) keeps both and tells no order.
    """

    number: int
    etag: str
    size: int
    is_ambiguous: bool = False


ERRORS = {
    "NoSuchKey": NoSuchObject,
    "NoSuchUpload": NoSuchUpload,
    "PreconditionFailed": ObjectExists,
    "BadDigest": ChecksumMismatch,
    "InvalidDigest": ChecksumMismatch,
    "InvalidPart": PartsChanged,
    "InvalidPartOrder": PartsChanged,
}


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Errors of the client libraries become this module's."""
    try:
        yield
    except S3Error as error:
        raise ERRORS.get(error.code or "", StorageUnavailable)(f"{what}: {error.code}, {error.message}") from error
    except (MinioException, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise StorageUnavailable(f"{what}: {error or type(error).__name__}") from error


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 300:
        text = await response.text()
        if text.lstrip().startswith("<"):
            raise S3Error.fromxml(response, text)
        raise ServerError(f"status {response.status}", response.status)


class _Body(AsyncIterablePayload):
    """Exactly `length` bytes of `chunks`, sent at most once.

    aiohttp repeats a PUT whose connection was gone, which would send the rest of an iterator for the whole. `failure` is what the source
    raised, or what is wrong with it. The last chunk is held back until the checksum is known, so that a wrong body stays incomplete.
    """

    def __init__(self, chunks: AsyncIterable[bytes], length: int, content_type: str, sha256: bytes | None) -> None:
        self._begun = False
        self.failure: Exception | None = None
        super().__init__(self._checked(chunks, length, sha256), content_type=content_type)
        self._size = length

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if self._begun:
            raise aiohttp.ClientConnectionError("the connection was lost with a part of the body sent")
        self._begun = True
        await super().write_with_length(writer, content_length)

    async def _checked(self, chunks: AsyncIterable[bytes], length: int, sha256: bytes | None) -> AsyncIterator[bytes]:
        sent, digest = 0, hashlib.sha256()
        try:
            async for chunk in chunks:
                sent += len(chunk)
                if sha256 is not None:
                    digest.update(chunk)
                    if sent == length and digest.digest() != sha256:
                        raise ChecksumMismatch("the SHA-256 of the bytes is another")
                if sent > length:
                    raise WrongLength(f"more than the {length} bytes announced")
                yield chunk
            if sent < length:
                raise WrongLength(f"{sent} bytes of the {length} announced")
        except Exception as error:
            self.failure = error
            raise


async def _slices(piece: bytes | bytearray) -> AsyncIterator[bytes]:
    view = memoryview(piece)
    for start in range(0, len(view), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])


async def _pieces(chunks: AsyncIterable[bytes], piece_bytes: int) -> AsyncIterator[bytearray]:
    """`chunks` cut anew: each piece but the last has `piece_bytes`."""
    piece = bytearray()
    async for chunk in chunks:
        piece += chunk
        while len(piece) > piece_bytes:
            rest = piece[piece_bytes:]
            del piece[piece_bytes:]
            yield piece
            piece = rest
    if piece:
        yield piece


async def _file_chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _newest(found: Iterable[S3Part]) -> Sequence[Part]:
    by_number: dict[int, list[S3Part]] = {}
    for part in found:
        by_number.setdefault(part.part_number, []).append(part)
    parts = []
    for number, sent in sorted(by_number.items()):
        newest = max(part.last_modified or EARLIEST for part in sent)
        last = [part for part in sent if (part.last_modified or EARLIEST) == newest]
        parts.append(Part(number, last[0].etag, last[0].size or 0, len({part.etag for part in last}) > 1))
    return parts


class Storage:
    """One bucket. Raises StorageUnavailable from every call."""

    def __init__(
        self, minio: Minio, reading: aiohttp.ClientSession, writing: aiohttp.ClientSession, bucket: str
    ) -> None:
        self.bucket = bucket
        self._minio, self._reading, self._writing = minio, reading, writing

    async def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""
        with _asking(f"bucket {self.bucket}"):
            async with asyncio.timeout(CONTROL_SECONDS):
                if not await self._minio.bucket_exists(self.bucket):
                    try:
                        await self._minio.make_bucket(self.bucket)
                    except S3Error as error:
                        if error.code != "BucketAlreadyOwnedByYou":  # another process was first
                            raise

    async def ping(self) -> None:
        """Return when the bucket is there and answers."""
        with _asking(f"bucket {self.bucket}"):
            async with asyncio.timeout(PING_SECONDS):
                if not await self._minio.bucket_exists(self.bucket):
                    raise StorageUnavailable(f"there is no bucket {self.bucket}")

    async def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, or None when there is none."""
        try:
            with _asking(f"head {key}"):
                async with asyncio.timeout(CONTROL_SECONDS):
                    found = await self._minio.stat_object(self.bucket, key)
        except NoSuchObject:
            return None
        return ObjectInfo(
            key,
            found.size or 0,
            found.etag or "",
            found.content_type or "application/octet-stream",
            found.last_modified or datetime.now(UTC),
        )

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` to before `end`, chunk by chunk; close it (`aclosing`) when you stop early. Raises NoSuchObject."""
        whole = start == 0 and end is None
        headers = {} if whole else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        with _asking(f"read {key}"):
            async with self._reading.get(await self._presigned("GET", key), headers=headers) as response:
                await _check(response)
                if response.status != (200 if whole else 206):
                    raise StorageUnavailable(f"read {key}: asked for a range, was given status {response.status}")
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    yield chunk

    async def read_bytes(self, key: str) -> bytes:
        """A small object whole. Raises NoSuchObject."""
        return b"".join([chunk async for chunk in self.read(key)])

    async def get_to_file(self, key: str, path: Path) -> None:
        """The object as a local file; a transfer that fails leaves no file. Raises NoSuchObject."""
        try:
            with path.open("wb") as file:
                async for chunk in self.read(key):
                    await asyncio.to_thread(file.write, chunk)
        except BaseException:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            raise

    async def put_bytes(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        cache_control: str | None = None,
        overwrite: bool = True,
    ) -> None:
        """Raises ObjectExists unless `overwrite`."""
        headers = {} if overwrite else {"If-None-Match": "*"}
        await self._put(key, _slices(data), len(data), content_type, cache_control=cache_control, headers=headers)

    async def put_file(
        self, key: str, path: Path, *, content_type: str = "application/octet-stream", cache_control: str | None = None
    ) -> None:
        """A local file; one larger than 5 GiB goes in pieces, without its `cache_control`."""
        size = (await asyncio.to_thread(path.stat)).st_size
        if size > SINGLE_PUT_BYTES:
            await self.put_stream(key, _file_chunks(path), content_type=content_type, piece_bytes=size // 9_999)
        else:
            await self._put(key, _file_chunks(path), size, content_type, cache_control=cache_control)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        length: int | None = None,
        *,
        content_type: str = "application/octet-stream",
        piece_bytes: int = PIECE_BYTES,
    ) -> int:
        """The bytes stored. Without `length` (or beyond 5 GiB) they go in pieces, of which one is held in memory."""
        if length is not None and length <= SINGLE_PUT_BYTES:
            await self._put(key, chunks, length, content_type)
            return length
        upload_id = await self.start_multipart(key, content_type=content_type)
        try:
            parts: list[Part] = []
            async for piece in _pieces(chunks, max(piece_bytes, PIECE_BYTES)):
                number = len(parts) + 1
                etag = await self.put_part(key, upload_id, number, _slices(piece), len(piece))
                parts.append(Part(number, etag, len(piece)))
            if not parts:  # S3 completes no upload without a part
                await self.abort_multipart(key, upload_id)
                await self.put_bytes(key, b"", content_type=content_type)
                return 0
            await self.complete_multipart(key, upload_id, parts)
        except BaseException:
            # Shielded: whoever cancels the put still wants nothing left of it.
            with suppress(StorageUnavailable, NoSuchUpload):
                await asyncio.shield(self.abort_multipart(key, upload_id))
            raise
        return sum(part.size for part in parts)

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """All objects whose key begins with `prefix`, by key. Their content type is not listed and stays empty."""
        with _asking(f"list {prefix}"):
            return [
                ObjectInfo(
                    found.object_name or "",
                    found.size or 0,
                    found.etag or "",
                    "",
                    found.last_modified or datetime.now(UTC),
                )
                async for found in self._minio.list_objects(self.bucket, prefix=prefix, recursive=True)
            ]

    async def delete_prefix(self, prefix: str) -> int:
        """Delete all objects under `prefix`, which ends in a slash, and its unfinished uploads; how many objects there were."""
        if not prefix.endswith("/") or prefix == "/":
            raise ValueError(f"{prefix!r} would delete more than one folder")
        objects = await self.list(prefix)
        with _asking(f"delete {prefix}"):
            errors = self._minio.remove_objects(self.bucket, [DeleteObject(found.key) for found in objects])
            async for error in errors:
                raise StorageUnavailable(f"delete {error.name}: {error.message}")
            async with asyncio.timeout(CONTROL_SECONDS):
                unfinished = await self._minio._list_multipart_uploads(self.bucket, prefix=prefix)
        for upload in unfinished.uploads:
            with suppress(NoSuchUpload):
                await self.abort_multipart(upload.object_name, upload.upload_id or "")
        return len(objects)

    async def start_multipart(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """Begin an upload in parts; S3's id of it."""
        with _asking(f"start {key}"):
            async with asyncio.timeout(CONTROL_SECONDS):
                upload_id: str = await self._minio._create_multipart_upload(
                    self.bucket, key, {"Content-Type": content_type}
                )
        return upload_id

    async def put_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        chunks: AsyncIterable[bytes],
        length: int,
        *,
        content_md5: str | None = None,
        sha256: str | None = None,
    ) -> str:
        """Store one part and return its etag; sent again, it replaces the first. Checksums are in base64.

        Raises NoSuchUpload, WrongLength, and ChecksumMismatch with nothing stored: the store compares `content_md5`, `sha256` is
        compared here, since S3 takes a part's SHA-256 only in an upload that was begun with it for every part.
        """
        return await self._put(
            key,
            chunks,
            length,
            "application/octet-stream",
            query={"partNumber": str(number), "uploadId": upload_id},
            headers={"Content-MD5": content_md5} if content_md5 else {},
            sha256=base64.b64decode(sha256) if sha256 else None,
        )

    async def list_parts(self, key: str, upload_id: str, *, page: int = 1_000) -> Sequence[Part]:
        """The parts in the store, by number; of one sent again, the newest. Raises NoSuchUpload."""
        found: list[S3Part] = []
        marker: str | None = None
        while True:
            with _asking(f"parts of {key}"):
                async with asyncio.timeout(CONTROL_SECONDS):
                    listed = await self._minio._list_parts(
                        self.bucket, key, upload_id, max_parts=page, part_number_marker=marker
                    )
            found += listed.parts
            if not listed.is_truncated:
                return _newest(found)
            marker = str(listed.next_part_number_marker)

    async def complete_multipart(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make one object of `parts`. Raises NoSuchUpload, PartsChanged."""
        with _asking(f"complete {key}"):
            async with asyncio.timeout(COMPLETE_SECONDS):
                done = await self._minio._complete_multipart_upload(
                    self.bucket, key, upload_id, [S3Part(part.number, part.etag) for part in parts]
                )
        if not done.etag:
            # S3 begins to answer 200 before it knows how it ends.
            raise StorageUnavailable(f"complete {key}: the answer was an error")

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """Give up an upload; its parts go. Raises NoSuchUpload, where the store tells."""
        with _asking(f"abort {key}"):
            async with asyncio.timeout(CONTROL_SECONDS):
                await self._minio._abort_multipart_upload(self.bucket, key, upload_id)

    async def _presigned(self, method: str, key: str, query: dict[str, str] | None = None) -> URL:
        # A fresh dict: the client library writes into the one it is given.
        url = await self._minio.get_presigned_url(method, self.bucket, key, extra_query_params=dict(query or {}))
        return URL(url, encoded=True)

    async def _put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        length: int,
        content_type: str,
        *,
        cache_control: str | None = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        sha256: bytes | None = None,
    ) -> str:
        body = _Body(chunks, length, content_type, sha256)
        sent = {"Content-Length": str(length), "Content-Type": content_type, **(headers or {})}
        if cache_control:
            sent["Cache-Control"] = cache_control
        try:
            with _asking(f"put {key}"):
                async with self._writing.put(
                    await self._presigned("PUT", key, query), data=body, headers=sent
                ) as answer:
                    await _check(answer)
                    return answer.headers.get("ETag", "").strip('"')
        except StorageUnavailable:
            if body.failure is not None:
                raise body.failure from None
            raise


@asynccontextmanager
async def open_storage(settings: Settings) -> AsyncIterator[Storage]:
    """The bucket of this system, closed at the end. Opening connects to nothing."""
    endpoint = settings.s3_endpoint
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)

    def session(connections: int) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=connections)
        return aiohttp.ClientSession(
            connector=connector, timeout=timeout, read_bufsize=CHUNK_BYTES, auto_decompress=False
        )

    async with session(READING_CONNECTIONS) as reading, session(WRITING_CONNECTIONS) as writing:
        minio = Minio(
            f"{endpoint.host}:{endpoint.port}",
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            region=settings.s3_region,
            secure=endpoint.scheme == "https",
            session=writing,
        )
        yield Storage(minio, reading, writing, settings.bucket)
