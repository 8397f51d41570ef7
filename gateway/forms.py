"""A multipart form, read part by part as it arrives (RFC 7578), with bounds on all that is held."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.answers import invalid_field
from gateway.problems import Problem

CHUNK_BYTES = 256 * 1024
FIELD_BYTES = 32 * 1024  # more than the longest text takes in UTF-8
MAX_FIELDS = 64
SILENCE_SECONDS = 60.0  # a client that sends nothing for so long is gone

T = TypeVar("T")


def malformed(detail: str) -> Problem:
    return Problem(400, "Malformed form", detail, [{"pointer": "#", "detail": detail}])


async def parts_of(request: web.Request) -> AsyncIterator[BodyPartReader]:
    """The parts in the order they come; each is to be read before the next is asked for. Raises Problem."""
    if request.content_type != "multipart/form-data":
        detail = f"send multipart/form-data, not {request.content_type or 'nothing'}"
        raise Problem(415, "Unsupported media type", detail, [{"header": "Content-Type", "detail": detail}])
    reader = await _ask(request.multipart())
    for _ in range(MAX_FIELDS):
        part = await _ask(reader.next())
        if part is None:
            return
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise malformed("a part of the form has no name of its own")
        if part.headers.get("Content-Transfer-Encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
            raise malformed(f"{part.name}: send the bytes as they are, without Content-Transfer-Encoding")
        yield part
    raise malformed(f"the form has more than {MAX_FIELDS} parts")


async def text_of(part: BodyPartReader) -> str:
    """A field's text. Raises Problem."""
    name, raw = part.name or "", b""
    async for chunk in chunks_of(part):
        raw += chunk
        if len(raw) > FIELD_BYTES:
            raise invalid_field(name, f"must be at most {FIELD_BYTES:,} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise invalid_field(name, "must be UTF-8") from None


async def chunks_of(part: BodyPartReader) -> AsyncIterator[bytes]:
    """A part's bytes as they arrive. Raises Problem."""
    while not part.at_eof():
        if chunk := await _ask(part.read_chunk(CHUNK_BYTES)):
            yield chunk


async def unless_silent(reading: Coroutine[Any, Any, T]) -> T:
    """What the client sends next. Raises Problem when it sends nothing for SILENCE_SECONDS."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await reading
    except TimeoutError:
        raise Problem(408, "Too slow", f"nothing arrived for {SILENCE_SECONDS:g} s; send it again") from None


async def _ask(reading: Coroutine[Any, Any, T]) -> T:
    try:
        return await unless_silent(reading)
    except (ValueError, AssertionError, KeyError, RuntimeError, HttpProcessingError) as error:
        # What aiohttp's reader raises for a form that it cannot follow.
        raise malformed(f"the form is malformed or ends early: {error}") from None
