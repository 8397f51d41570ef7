"""The simple upload: one form with the film in it, streamed into the store as it arrives."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from aiohttp import BodyPartReader, web
from pydantic import TypeAdapter, ValidationError

from compose.storage import PIECE_BYTES, Storage, StorageUnavailable
from gateway.answers import invalid, invalid_field, secret_of
from gateway.forms import chunks_of, parts_of, text_of
from gateway.keys import SETTINGS, STORAGE
from gateway.multipart import (
    MEDIA_TYPES,
    append,
    film_accepted,
    initiated,
    media_type_of,
    new_film,
    too_large,
    uploaded,
)
from gateway.tickets import LIFETIME_SECONDS, Ticket, part_size_for, write_ticket
from schemas.bounds import Title
from schemas.events import Metadata

FORM_BYTES = 2 * 2**20  # of the body may be something else than the film
NUMBERS = ("season_number", "episode_number", "release_year")
MAX_DIGITS = 18
MAY_STILL_COME = ("missing", "value_error")  # pydantic's words for an absent field and for an episode without its show

FILENAME: TypeAdapter[str] = TypeAdapter(Title)


async def upload_video(request: web.Request) -> web.Response:
    """`POST /api/videos/upload`: a film and what is said of it. Refused, it leaves nothing in the store and nothing in the log."""
    limit = request.app[SETTINGS].upload_limit_bytes
    if (request.content_length or 0) > limit + FORM_BYTES:
        raise too_large("file", limit)
    storage = request.app[STORAGE]
    video_id, key = new_film()
    fields: dict[str, str] = {}
    filename: str | None = None
    try:
        async for part in parts_of(request):
            name = part.name or ""
            if name in fields or (name == "file" and filename is not None):
                raise invalid_field(name, "is there more than once")
            if name == "file":
                check_so_far(fields)
                filename = filename_of(part)
                await store(storage, key, part, filename, limit)
            else:
                fields[name] = await text_of(part)
        metadata = metadata_of(fields)
        if filename is None:
            raise invalid_field("file", "is missing")
        stored = await storage.head(key)
        if stored is None:
            raise StorageUnavailable(f"{key} is not there after it was stored")
        event = initiated(video_id, key, metadata, filename, stored.size)
        await append(request, event, f"{video_id}:initiated", video_id=video_id)
    except BaseException:
        if filename is not None:
            with suppress(StorageUnavailable):
                # Shielded: a client that is gone wants nothing left of its film.
                await asyncio.shield(storage.delete_prefix(f"videos/{video_id}/"))
        raise
    # From here on the film is announced and stays: should the log be gone now, `complete` with this ticket finishes it.
    part_size = part_size_for(stored.size, request.app[SETTINGS].upload_part_bytes)
    ticket = Ticket(video_id, key, "joined", stored.size, part_size, int(time.time()) + LIFETIME_SECONDS)
    again = {"video_id": video_id, "upload_id": write_ticket(ticket, secret_of(request))}
    return film_accepted(
        request, video_id, await append(request, uploaded(video_id, stored), f"{video_id}:uploaded", **again)
    )


async def store(storage: Storage, key: str, part: BodyPartReader, filename: str, limit: int) -> None:
    """Stream the film into the store. Raises Problem when it is empty or too large."""

    async def bounded() -> AsyncIterator[bytes]:
        received = 0
        async for chunk in chunks_of(part):
            received += len(chunk)
            if received > limit:
                raise too_large("file", limit)
            yield chunk
        if not received:
            raise invalid_field("file", "is empty")

    media_type = media_type_of(filename)
    said = part.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if said in MEDIA_TYPES.values():
        media_type = said
    piece_bytes = part_size_for(limit, PIECE_BYTES)
    await storage.put_stream(key, bounded(), content_type=media_type, piece_bytes=piece_bytes)


def check_so_far(fields: Mapping[str, str]) -> None:
    """Before the film is read: raises Problem when a field that came before it is wrong; what is missing may still come."""
    try:
        Metadata.model_validate(values_of(fields))
    except ValidationError as error:
        if any(item["type"] not in MAY_STILL_COME for item in error.errors()):
            raise invalid(error) from None


def metadata_of(fields: Mapping[str, str]) -> Metadata:
    """Raises Problem with each bad field named."""
    try:
        return Metadata.model_validate(values_of(fields))
    except ValidationError as error:
        raise invalid(error) from None


def values_of(fields: Mapping[str, str]) -> dict[str, str | int]:
    """The texts of a form as what they are; an input left empty was not filled in."""
    filled = {name: text for name, text in fields.items() if text != ""}
    return {name: number_in(text) if name in NUMBERS else text for name, text in filled.items()}


def number_in(text: str) -> str | int:
    """Plain digits are a number; anything else stays a text, which the model refuses by the field's name."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS else text


def filename_of(part: BodyPartReader) -> str:
    """The film's name on its owner's disk. Raises Problem."""
    try:
        return FILENAME.validate_python(part.filename or "film")
    except ValidationError as error:
        raise invalid_field("file", f"its filename: {error.errors()[0]['msg']}") from None
