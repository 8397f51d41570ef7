"""Films on their way out: the source by ranges, playlists, segments, pictures."""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from email.utils import format_datetime
from typing import NamedTuple

import structlog
from aiohttp import web

from compose.storage import NoSuchObject, ObjectInfo, Storage, StorageUnavailable
from gateway.answers import read_query
from gateway.freshness import After, wait_for_writes
from gateway.keys import CATALOGUE, SHELF, STORAGE
from gateway.problems import Problem, not_found
from gateway.ranges import Conditions, Slice, Unsatisfiable, evaluate, find_range, range_still_holds
from projections.queries.catalogue import Catalogue, Video
from projections.sinks.sink import StoreUnavailable

FILM_SECONDS = 1.0  # how long a film may still play after it was deleted
FILMS_KEPT = 4_096
OBJECTS_KEPT = 16_384

PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
FOR_EVER = "public, max-age=31536000, immutable"
SHORTLY = "public, max-age=2"
REVALIDATED = "public, no-cache"
TYPES = {
    "m4s": "video/iso.segment",
    "mp4": "video/mp4",
    "m4a": "audio/mp4",
    "ts": "video/mp2t",
    "jpg": "image/jpeg",
}
# No name of ours begins with a dot, so none leads out of its folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.([a-z0-9]{1,5})")
ANY_ORIGIN = {
    # Players on other origins are normal, and what is delivered here depends on no cookie.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
    "X-Content-Type-Options": "nosniff",
}

logger = structlog.get_logger(__name__)

Open = Callable[[int, int], AsyncGenerator[bytes, None]]


class Version(NamedTuple):
    """What is sent: its size in bytes and the names of this version of it."""

    size: int
    etag: str
    content_type: str
    modified_at: datetime | None = None


class Shelf:
    """What a gateway process remembers of films for a second, and of objects, which never change under their key, for long."""

    def __init__(self) -> None:
        self._films: OrderedDict[str, tuple[float, asyncio.Task[Video | None]]] = OrderedDict()
        self._objects: OrderedDict[str, ObjectInfo] = OrderedDict()

    async def film(self, catalogue: Catalogue, video_id: str, *, fresh: bool = False) -> Video | None:
        """The film as it was at most FILM_SECONDS ago; many who ask at once are one query."""
        now = time.monotonic()
        until, looking = self._films.get(video_id, (0.0, None))
        if looking is None or until <= now or (fresh and looking.done()):
            looking = asyncio.create_task(catalogue.find(video_id))
            self._films[video_id] = (now + FILM_SECONDS, looking)
            self._films.move_to_end(video_id)
            if len(self._films) > FILMS_KEPT:
                self._films.popitem(last=False)
        # Shielded: who leaves must not take the answer from the others.
        return await asyncio.shield(looking)

    async def object(self, storage: Storage, key: str) -> ObjectInfo:
        """Raises NoSuchObject."""
        found = self._objects.get(key)
        if found is None:
            found = await storage.head(key)
            if found is None:
                raise NoSuchObject(key)
            self._objects[key] = found
            if len(self._objects) > OBJECTS_KEPT:
                self._objects.popitem(last=False)
        else:
            self._objects.move_to_end(key)
        return found

    def forget_film(self, video_id: str) -> None:
        self._films.pop(video_id, None)

    def forget(self, key: str) -> None:
        self._objects.pop(key, None)


async def stream_video(request: web.Request) -> web.StreamResponse:
    """`GET /api/videos/{id}/stream`: the film as it was uploaded, whole or a range of it."""
    film = await film_of(request, lambda film: film.uploaded_at is not None)
    assert film.source_key is not None
    return await send_object(request, film.source_key, REVALIDATED)


async def master_playlist(request: web.Request) -> web.StreamResponse:
    """`GET /api/videos/{id}/hls/master.m3u8`: the qualities there are."""
    return await send_playlist(request, f"{await hls_prefix(request)}/master.m3u8")


async def media_playlist(request: web.Request) -> web.StreamResponse:
    """`GET /api/videos/{id}/hls/{quality}/playlist.m3u8`: the segments of one quality."""
    return await send_playlist(request, f"{await hls_prefix(request)}/{request.match_info['quality']}/playlist.m3u8")


async def segment(request: web.Request) -> web.StreamResponse:
    """`GET /api/videos/{id}/hls/{quality}/{segment}`: a segment, or what comes before the first; the same for ever."""
    name = request.match_info["segment"]
    media_type = type_of(name)
    key = f"{await hls_prefix(request)}/{request.match_info['quality']}/{name}"
    return await send_object(request, key, FOR_EVER, media_type)


async def thumbnail(request: web.Request) -> web.StreamResponse:
    """`GET /api/videos/{id}/thumbnail`: a picture of the film."""
    film = await film_of(request, lambda film: film.hls_prefix is not None and film.thumbnail is not None)
    return await send_object(request, f"{film.hls_prefix}/{film.thumbnail}", REVALIDATED, "image/jpeg")


async def storyboard(request: web.Request) -> web.StreamResponse:
    """`GET /api/videos/{id}/storyboard`: the WebVTT that says which part of which sheet shows each moment."""
    film = await film_of(request, lambda film: film.hls_prefix is not None and film.storyboard is not None)
    return await send_object(request, f"{film.hls_prefix}/{film.storyboard}", REVALIDATED, "text/vtt; charset=utf-8")


async def storyboard_sheet(request: web.Request) -> web.StreamResponse:
    """`GET /api/videos/{id}/{sheet}`: a sheet of small pictures, as the storyboard names it."""
    name = request.match_info["sheet"]
    media_type = type_of(name)
    return await send_object(request, f"{await hls_prefix(request)}/{name}", FOR_EVER, media_type)


async def film_of(request: web.Request, serves: Callable[[Video], bool]) -> Video:
    """The film that the path names, when it `serves`. Raises Problem."""
    video_id = request.match_info["id"]
    if "after" in request.query:
        # What others have looked up may be older than the write.
        await wait_for_writes(request, read_query(request, After), "catalogue")
        request.app[SHELF].forget_film(video_id)
    for fresh in (False, True):  # what is remembered may be older than the film's end of work
        film = await request.app[SHELF].film(request.app[CATALOGUE], video_id, fresh=fresh)
        if film is not None and serves(film):
            return film
    if film is None:
        raise not_found("video", video_id)
    raise Problem(404, "Not there yet", f"the film {video_id} is {film.status}: this is there once it is made")


async def hls_prefix(request: web.Request) -> str:
    """Where what plays of the film lies. Raises Problem."""
    film = await film_of(request, lambda film: film.hls_prefix is not None)
    return film.hls_prefix or ""


def type_of(name: str) -> str:
    """The media type of a file of ours, by its ending. Raises Problem for a name that none of them has."""
    match = NAME.fullmatch(name)
    media_type = TYPES.get(match[2]) if match else None
    if media_type is None:
        raise not_found("file", name)
    return media_type


async def send_playlist(request: web.Request, key: str) -> web.StreamResponse:
    """A playlist, read anew each time: it may grow."""
    try:
        text = await request.app[STORAGE].read_bytes(key)
    except NoSuchObject:
        raise missing(request) from None

    async def part(start: int, end: int) -> AsyncGenerator[bytes, None]:
        yield text[start:end]

    version = Version(len(text), hashlib.sha256(text).hexdigest()[:32], PLAYLIST_TYPE)
    return await send(request, version, SHORTLY, part)


async def send_object(
    request: web.Request, key: str, cache_control: str, content_type: str | None = None
) -> web.StreamResponse:
    """An object that never changes under its key."""
    try:
        info = await request.app[SHELF].object(request.app[STORAGE], key)
        version = Version(info.size, info.etag, content_type or info.content_type, info.modified_at)
        return await send(request, version, cache_control, lambda start, end: open_object(request, key, start, end))
    except NoSuchObject:
        request.app[SHELF].forget(key)
        raise missing(request) from None


def open_object(request: web.Request, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
    """The one place where the bytes of objects come from."""
    return request.app[STORAGE].read(key, start, end)


async def send(request: web.Request, version: Version, cache_control: str, open_it: Open) -> web.StreamResponse:
    """Answer a GET or HEAD for `version` by RFC 9110: preconditions, then the range. Raises Problem."""
    last_modified = format_datetime(version.modified_at, usegmt=True) if version.modified_at else None
    headers = {"ETag": f'"{version.etag}"', "Cache-Control": cache_control, "Accept-Ranges": "bytes", **ANY_ORIGIN}
    if last_modified:
        headers["Last-Modified"] = last_modified
    conditions = Conditions(
        request.if_match, request.if_none_match, request.if_modified_since, request.if_unmodified_since
    )
    ended = evaluate(conditions, version.etag, version.modified_at)
    if ended == 304:
        return web.Response(status=304, headers=headers)
    if ended == 412:
        raise Problem(
            412, "Precondition failed", "this is another version than the one you ask for", headers=ANY_ORIGIN
        )
    wanted: Slice | Unsatisfiable | None = None
    # Range is defined for GET alone (§14.2).
    if request.method == "GET" and range_still_holds(request.headers.get("If-Range"), version.etag, last_modified):
        wanted = find_range(request.headers.get("Range"), version.size)
    if isinstance(wanted, Unsatisfiable):
        detail = f"there are {version.size} bytes, from 0"
        told = {"Content-Range": f"bytes */{version.size}", **ANY_ORIGIN}
        raise Problem(416, "Range not satisfiable", detail, [{"header": "Range", "detail": detail}], headers=told)
    start, end = wanted or (0, version.size)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{version.size}"
    response = web.StreamResponse(status=206 if wanted else 200, headers=headers)
    response.headers["Content-Type"] = version.content_type
    response.content_length = end - start
    if request.method == "HEAD" or start == end:
        await response.prepare(request)
        return response
    return await copy(request, response, open_it(start, end))


async def copy(
    request: web.Request, response: web.StreamResponse, chunks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """Send `chunks` as fast as the client takes them."""
    async with aclosing(chunks) as source:
        # The first before the headers: until it is there, an error can still be told.
        first = await anext(source)
        await response.prepare(request)
        await response.write(first)
        try:
            async for chunk in source:
                await response.write(chunk)
        except (StorageUnavailable, NoSuchObject, StoreUnavailable) as error:
            # The status is sent: all that can be done is not to let the body pass for whole.
            logger.warning("the store failed in the middle of an answer", path=request.path, error=str(error))
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the answer was cut short") from error
    await response.write_eof()
    return response


def missing(request: web.Request) -> Problem:
    return Problem(404, "No such file", f"there is nothing at {request.path!r}", headers=ANY_ORIGIN)
