"""Uploads in parts: begun, filled in any order and from any process, completed once however often it is asked."""

import asyncio
import base64
import binascii
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import orjson
from aiohttp import web
from pydantic import Field
from uuid_utils import uuid7

from compose.log import Appended, LogUnavailable
from compose.storage import (
    ChecksumMismatch,
    NoSuchObject,
    NoSuchUpload,
    ObjectExists,
    ObjectInfo,
    Part,
    PartsChanged,
    Storage,
    StorageUnavailable,
    WrongLength,
)
from gateway.answers import (
    Body,
    Query,
    accepted,
    answer,
    bad_parameter,
    invalid_field,
    read_body,
    read_query,
    secret_of,
    whole,
)
from gateway.forms import unless_silent
from gateway.keys import LOG, SETTINGS, STORAGE
from gateway.problems import Problem, unavailable
from gateway.tickets import (
    LIFETIME_SECONDS,
    MAX_PARTS,
    NoTicket,
    Ticket,
    TicketExpired,
    part_size_for,
    read_ticket,
    write_ticket,
)
from schemas.bounds import INT64_MAX, Title
from schemas.events import Event, Metadata, UploadAborted, UploadInitiated, VideoUploaded
from schemas.log import Place

MISSING_NAMED = 20
COMPLETE_BODY_BYTES = 2 * 2**20  # 10,000 parts with their etags

MEDIA_TYPES = {
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "mkv": "video/x-matroska",
    "webm": "video/webm",
    "avi": "video/x-msvideo",
    "ts": "video/mp2t",
    "mpg": "video/mpeg",
    "mpeg": "video/mpeg",
    "ogv": "video/ogg",
}


PartNumber = Annotated[int, Field(ge=1, le=MAX_PARTS)]
UploadId = Annotated[str, Field(min_length=1, max_length=2_048)]
ETag = Annotated[str, Field(pattern=r'^"?[A-Za-z0-9-]{1,128}"?$')]


class Initiate(Metadata):
    """A film to come, and how many bytes it has."""

    filename: Title
    size: Annotated[int, Field(ge=1, le=INT64_MAX)]


class UploadQuery(Query):
    """Which upload."""

    upload_id: UploadId


class PartQuery(UploadQuery):
    """Which part of which upload."""

    part_number: Annotated[PartNumber, whole]


class SentPart(Body):
    """A part as the client was told of it."""

    part_number: PartNumber
    etag: ETag


class Complete(Body):
    """`parts` may name every part's etag; without it the newest of each is taken."""

    upload_id: UploadId
    parts: Annotated[list[SentPart], Field(max_length=MAX_PARTS)] | None = None


class Abort(Body):
    """Which upload to give up."""

    upload_id: UploadId


async def initiate_upload(request: web.Request) -> web.Response:
    """`POST /api/multipart/initiate`: announce a film and say how its bytes are to be cut."""
    body = await read_body(request, Initiate)
    settings, storage = request.app[SETTINGS], request.app[STORAGE]
    if body.size > settings.upload_limit_bytes:
        raise too_large("size", settings.upload_limit_bytes)
    video_id, key = new_film()
    s3_upload_id = await storage.start_multipart(key, content_type=media_type_of(body.filename))
    try:
        event = initiated(video_id, key, body, body.filename, body.size)
        appended = await append(request, event, f"{video_id}:initiated", video_id=video_id)
    except BaseException:
        await give_up(storage, key, s3_upload_id)
        raise
    part_size = part_size_for(body.size, settings.upload_part_bytes)
    ticket = Ticket(video_id, key, s3_upload_id, body.size, part_size, int(time.time()) + LIFETIME_SECONDS)
    told = {
        "upload_id": write_ticket(ticket, secret_of(request)),
        "video_id": video_id,
        "part_size": part_size,
        "total_parts": ticket.total_parts,
        "expires_at": ticket.expires,
    }
    return accepted(request, appended, told, status=201)


async def put_part(request: web.Request) -> web.Response:
    """`POST /api/multipart/part`: one part, in any order and beside others; sent again it replaces the first."""
    query = read_query(request, PartQuery)
    ticket = ticket_in(request, query.upload_id)
    if query.part_number > ticket.total_parts:
        raise bad_parameter("part_number", f"this upload has {ticket.total_parts} parts")
    size = ticket.size_of(query.part_number)
    check_length(request, size, f"part {query.part_number} of {ticket.total_parts}")
    try:
        etag = await request.app[STORAGE].put_part(
            ticket.object_key,
            ticket.s3_upload_id,
            query.part_number,
            chunks_of(request),
            size,
            content_md5=checksum_in(request, "Content-MD5", 16),
            sha256=checksum_in(request, "x-amz-checksum-sha256", 32),
        )
    except ChecksumMismatch:
        name = "x-amz-checksum-sha256" if "x-amz-checksum-sha256" in request.headers else "Content-MD5"
        detail = f"the bytes that arrived have another checksum than {name} says; send the part again"
        raise Problem(400, "Wrong checksum", detail, [{"header": name, "detail": detail}]) from None
    except WrongLength as error:
        raise Problem(400, "Wrong length", str(error)) from None
    except NoSuchUpload:
        raise await gone(request, ticket, in_query=True) from None
    return answer({"part_number": query.part_number, "etag": etag, "size": size})


async def list_parts(request: web.Request) -> web.Response:
    """`GET /api/multipart/list-parts`: what has arrived, so that an upload can go on where it stopped."""
    query = read_query(request, UploadQuery)
    ticket = ticket_in(request, query.upload_id)
    try:
        parts = await request.app[STORAGE].list_parts(ticket.object_key, ticket.s3_upload_id)
    except NoSuchUpload:
        raise await gone(request, ticket, in_query=True) from None
    told = [{"part_number": part.number, "etag": part.etag, "size": part.size} for part in parts]
    received = sum(part.size for part in parts)
    return answer(
        {
            "upload_id": query.upload_id,
            "parts": told,
            "received_bytes": received,
            "part_size": ticket.part_size,
            "total_parts": ticket.total_parts,
            "expires_at": ticket.expires,
        }
    )


async def complete_upload(request: web.Request) -> web.Response:
    """`POST /api/multipart/complete`: make the parts a film; asked again, the answer is the same."""
    body = await read_body(request, Complete, limit=COMPLETE_BODY_BYTES)
    ticket = ticket_in(request, body.upload_id, in_query=False)
    storage = request.app[STORAGE]
    appended = await read_receipt(storage, ticket)
    if appended is None:
        stored = await join_parts(request, ticket, body.parts)
        again = {"video_id": ticket.video_id, "upload_id": body.upload_id}
        event = uploaded(ticket.video_id, stored)
        appended = await append(request, event, f"{ticket.video_id}:uploaded", **again)
        appended = await write_receipt(storage, ticket, appended)
    return film_accepted(request, ticket.video_id, appended)


async def abort_upload(request: web.Request) -> web.Response:
    """`POST /api/multipart/abort`: give the upload up; nothing of it is kept."""
    body = await read_body(request, Abort)
    try:
        ticket = ticket_in(request, body.upload_id, in_query=False)
    except Problem as problem:
        if problem.status == 410:
            return web.Response(status=204)
        raise
    storage = request.app[STORAGE]
    # Looked for before and after: the store lets an upload be aborted that is complete, and leaves the film.
    for step in ("before", "after"):
        if await storage.head(ticket.object_key) is not None:
            raise Problem(409, "Upload complete", f"the film {ticket.video_id} is there: delete it instead")
        if step == "before":
            with suppress(NoSuchUpload):
                await storage.abort_multipart(ticket.object_key, ticket.s3_upload_id)
    event = UploadAborted(video_id=ticket.video_id, occurred_at=datetime.now(UTC), reason="given up by its owner")
    await append(request, event, f"{ticket.video_id}:aborted", video_id=ticket.video_id)
    return web.Response(status=204)


async def join_parts(request: web.Request, ticket: Ticket, named: Sequence[SentPart] | None) -> ObjectInfo:
    """The object made of all parts, now or by a call before. Raises Problem."""
    storage = request.app[STORAGE]
    try:
        there = await storage.list_parts(ticket.object_key, ticket.s3_upload_id)
        parts = chosen(ticket, there, named)
        await storage.complete_multipart(ticket.object_key, ticket.s3_upload_id, parts)
    except PartsChanged:
        detail = "a part has another etag than is there, or was sent again meanwhile; list the parts and complete again"
        raise Problem(409, "Parts changed", detail, [{"pointer": "#/parts", "detail": detail}]) from None
    except NoSuchUpload:
        pass  # completed by a call before this one, or gone
    stored = await storage.head(ticket.object_key)
    if stored is None:
        raise await gone(request, ticket)
    return stored


def chosen(ticket: Ticket, there: Sequence[Part], named: Sequence[SentPart] | None) -> Sequence[Part]:
    """The parts to join: each number once. Raises Problem with those that are missing."""
    sizes = {part.number: part.size for part in there}
    asked = sizes.keys() if named is None else {part.part_number for part in named} & sizes.keys()
    missing = [number for number in range(1, ticket.total_parts + 1) if number not in asked]
    if missing:
        more = f" and {len(missing) - MISSING_NAMED} more" if len(missing) > MISSING_NAMED else ""
        detail = f"missing: {', '.join(map(str, missing[:MISSING_NAMED]))}{more} of {ticket.total_parts} parts"
        raise Problem(
            409,
            "Parts missing",
            detail,
            [{"pointer": "#/parts", "detail": detail}],
            more={"missing": missing[:MISSING_NAMED]},
        )
    if named is None:
        unclear = [part.number for part in there if part.is_ambiguous]
        if unclear:
            detail = f"part {unclear[0]} was sent twice within a second with other bytes: name the etags in parts"
            raise Problem(409, "Parts unclear", detail, [{"pointer": "#/parts", "detail": detail}])
        return there
    numbers = [part.part_number for part in named]
    if len(set(numbers)) < len(numbers) or max(numbers) > ticket.total_parts:
        raise invalid_field("parts", f"must name each of 1 to {ticket.total_parts} once")
    return sorted(Part(part.part_number, part.etag.strip('"'), sizes[part.part_number]) for part in named)


async def gone(request: web.Request, ticket: Ticket, *, in_query: bool = False) -> Problem:
    """Why an upload takes no more: it is complete, or it was given up."""
    if await request.app[STORAGE].head(ticket.object_key) is not None:
        return Problem(
            409, "Upload complete", "all parts were joined; POST /api/multipart/complete tells the film again"
        )
    return wrong_upload(
        404, "No such upload", "the upload was aborted or has expired; begin a new one", in_query=in_query
    )


def ticket_in(request: web.Request, upload_id: str, *, in_query: bool = True) -> Ticket:
    """The ticket that `upload_id` is. Raises Problem."""
    try:
        return read_ticket(upload_id, secret_of(request))
    except NoTicket:
        detail = "is none that POST /api/multipart/initiate has given out"
        raise wrong_upload(400, "Wrong upload_id", detail, in_query=in_query) from None
    except TicketExpired:
        detail = "has expired; begin a new upload"
        raise wrong_upload(410, "Upload expired", detail, in_query=in_query) from None


def wrong_upload(status: int, title: str, detail: str, *, in_query: bool) -> Problem:
    where = {"parameter": "upload_id"} if in_query else {"pointer": "#/upload_id"}
    return Problem(status, title, f"upload_id: {detail}", [{**where, "detail": detail}])


def too_large(name: str, limit: int) -> Problem:
    """413 for a film beyond the limit."""
    detail = f"at most {limit:,} bytes are taken"
    return Problem(413, "Film too large", f"{name}: {detail}", [{"pointer": f"#/{name}", "detail": detail}])


def check_length(request: web.Request, size: int, what: str) -> None:
    """Before a byte is read. Raises Problem unless the body says that it has `size` bytes."""
    if "Content-Encoding" in request.headers:
        raise Problem(415, "Unsupported encoding", "send the bytes as they are, without Content-Encoding")
    length = request.content_length
    if length is None:
        raise Problem(411, "Length required", f"say the Content-Length: {what} has {size} bytes")
    if length != size:
        detail = f"{what} has {size} bytes, not {length}"
        status, title = (413, "Part too large") if length > size else (400, "Part too small")
        raise Problem(status, title, detail, [{"header": "Content-Length", "detail": detail}])


def checksum_in(request: web.Request, name: str, digest_bytes: int) -> str | None:
    """A checksum header in base64. Raises Problem when it is none."""
    value = request.headers.get(name)
    if value is None:
        return None
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != digest_bytes:
        detail = f"{name} must be {digest_bytes} bytes in base64"
        raise Problem(400, "Wrong checksum", detail, [{"header": name, "detail": detail}])
    return value


async def chunks_of(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises Problem when the client falls silent."""
    while chunk := await unless_silent(request.content.readany()):
        yield chunk


def new_film() -> tuple[str, str]:
    """A video id, and the key of its source: ours, and never overwritten."""
    video_id = str(uuid7())
    return video_id, f"videos/{video_id}/source/{uuid.uuid4().hex}"


def media_type_of(filename: str) -> str:
    """By the name's ending; it is what we serve, so never a type that a browser would run."""
    return MEDIA_TYPES.get(filename.rpartition(".")[2].lower(), "application/octet-stream")


def initiated(video_id: str, key: str, metadata: Metadata, filename: str, size: int | None) -> UploadInitiated:
    """The film is announced."""
    said = {name: getattr(metadata, name) for name in Metadata.model_fields}
    return UploadInitiated(
        video_id=video_id, occurred_at=datetime.now(UTC), object_key=key, filename=filename, size=size, **said
    )


def uploaded(video_id: str, stored: ObjectInfo) -> VideoUploaded:
    """All bytes are there. Made of the object alone, so that it is the same event whenever it is made."""
    return VideoUploaded(
        video_id=video_id,
        occurred_at=stored.modified_at,
        object_key=stored.key,
        size=stored.size,
        etag=stored.etag,
        media_type=stored.content_type,
    )


async def append(request: web.Request, event: Event, event_id: str, **again: str) -> Appended:
    """Raises Problem 503 with the ids in `again`, for sending it again is the same event."""
    try:
        return await request.app[LOG].append(event, event_id=event_id)
    except LogUnavailable as error:
        raise unavailable("The log", str(error), error.retry_after_seconds, **again) from error


def film_accepted(request: web.Request, video_id: str, appended: Appended) -> web.Response:
    """The film is on its way to be transcoded."""
    location = {"Location": f"/api/videos/{video_id}"}
    return accepted(request, appended, {"video_id": video_id, "status": "PENDING"}, headers=location)


async def give_up(storage: Storage, key: str, s3_upload_id: str) -> None:
    """Abort what was begun; what the store does not hear now expires there."""
    with suppress(StorageUnavailable, NoSuchUpload):
        await asyncio.shield(storage.abort_multipart(key, s3_upload_id))


async def read_receipt(storage: Storage, ticket: Ticket) -> Appended | None:
    """Where an earlier call appended the film's event, so that every answer is the same."""
    try:
        place, event_id = orjson.loads(await storage.read_bytes(receipt_key(ticket)))
    except NoSuchObject:
        return None
    return Appended(Place(*place), event_id)


async def write_receipt(storage: Storage, ticket: Ticket, appended: Appended) -> Appended:
    """Keep the event's place; of two calls side by side both answer with the first."""
    try:
        data = orjson.dumps([list(appended.place), appended.event_id])
        await storage.put_bytes(receipt_key(ticket), data, content_type="application/json", overwrite=False)
    except ObjectExists:
        return await read_receipt(storage, ticket) or appended
    except StorageUnavailable:
        pass  # the event is acknowledged; asked again, it is appended again and is the same event
    return appended


def receipt_key(ticket: Ticket) -> str:
    return f"{ticket.object_key}.receipt"
