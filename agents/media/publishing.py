"""Puts a checked film into the store: segments before their playlist, the playlists before the master, all under a fresh prefix."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import stamina

from agents.media.checking import Rendition
from agents.media.pictures import THUMBNAIL, Pictures
from agents.media.playlists import (
    Variant,
    average_bandwidth,
    master_playlist,
    media_playlist,
    peak_bandwidth,
    storyboard,
)
from agents.media.transcoding import Plan, init_name
from compose.storage import Storage, StorageUnavailable

FOR_EVER = "public, max-age=31536000, immutable"
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
SIDE_BY_SIDE = 4
PATIENCE_SECONDS = 120.0  # with a store that is away: a film took long to make


class Film(NamedTuple):
    """A film as it lies in `folder`, measured and ready to be shown. `attempt` is part of every name, so that no URL ever changes."""

    folder: Path
    attempt: str
    plan: Plan
    renditions: Sequence[Rendition]
    pictures: Pictures
    passport: dict[str, Any]

    @property
    def thumbnail(self) -> str:
        """Its name under the prefix."""
        return f"thumbnail-{self.attempt}.jpg"

    @property
    def storyboard(self) -> str:
        """The name of its WebVTT under the prefix; the sheets lie beside it."""
        return f"storyboard-{self.attempt}.vtt"


def variant_of(rendition: Rendition, plan: Plan) -> Variant:
    """The rendition's line in the master playlist."""
    return Variant(
        rendition.rung.quality,
        rendition.rung.width,
        rendition.rung.height,
        peak_bandwidth(rendition.segments),
        average_bandwidth(rendition.segments),
        rendition.codecs,
        plan.rate,
    )


async def publish(
    storage: Storage, prefix: str, film: Film, on_rendition: Callable[[Variant], Awaitable[None]]
) -> None:
    """Store everything under `prefix`; `on_rendition` is told of each rendition when all of it is there. Raises StorageUnavailable."""
    for rendition in reversed(film.renditions):
        await _publish_rendition(storage, f"{prefix}/{rendition.rung.quality}", film, rendition)
        await on_rendition(variant_of(rendition, film.plan))
    await _publish_pictures(storage, prefix, film)
    await _put(storage, f"{prefix}/passport.json", orjson.dumps(film.passport), "application/json")
    master = master_playlist([variant_of(rendition, film.plan) for rendition in film.renditions])
    await _put(storage, f"{prefix}/master.m3u8", master.encode(), PLAYLIST_TYPE)


async def _publish_rendition(storage: Storage, prefix: str, film: Film, rendition: Rendition) -> None:
    init = f"init-{film.attempt}.mp4"
    segments = [
        segment._replace(name=f"{film.attempt}-{number:05}.m4s") for number, segment in enumerate(rendition.segments)
    ]
    files = [(f"{prefix}/{init}", film.folder / init_name(rendition.rung), "video/mp4")]
    files += [
        (f"{prefix}/{new.name}", film.folder / old.name, "video/iso.segment")
        for old, new in zip(rendition.segments, segments, strict=True)
    ]
    await _put_files(storage, files)
    await _put(storage, f"{prefix}/playlist.m3u8", media_playlist(init, segments).encode(), PLAYLIST_TYPE)


async def _publish_pictures(storage: Storage, prefix: str, film: Film) -> None:
    pictures = film.pictures
    sheets = [f"storyboard-{film.attempt}-{number:03}.jpg" for number, _ in enumerate(pictures.sheets, start=1)]
    files = [(f"{prefix}/{film.thumbnail}", film.folder / THUMBNAIL, "image/jpeg")]
    files += [
        (f"{prefix}/{name}", film.folder / sheet, "image/jpeg")
        for name, sheet in zip(sheets, pictures.sheets, strict=True)
    ]
    await _put_files(storage, files)
    track = storyboard(
        sheets, pictures.tiles, pictures.interval_seconds, film.plan.duration_seconds, pictures.tile
    ).encode()
    await _put(storage, f"{prefix}/{film.storyboard}", track, "text/vtt", FOR_EVER)


async def _put_files(storage: Storage, files: Iterable[tuple[str, Path, str]]) -> None:
    free = asyncio.Semaphore(SIDE_BY_SIDE)

    async def put(key: str, path: Path, content_type: str) -> None:
        async for attempt in _patiently():
            with attempt:
                async with free:
                    await storage.put_file(key, path, content_type=content_type, cache_control=FOR_EVER)

    putting = [asyncio.create_task(put(*file)) for file in files]
    try:
        await asyncio.gather(*putting)
    finally:
        for task in putting:
            task.cancel()
        await asyncio.gather(*putting, return_exceptions=True)


async def _put(storage: Storage, key: str, data: bytes, content_type: str, cache_control: str | None = None) -> None:
    async for attempt in _patiently():
        with attempt:
            await storage.put_bytes(key, data, content_type=content_type, cache_control=cache_control)


def _patiently() -> AsyncIterator[AbstractContextManager[Any]]:
    return stamina.retry_context(on=StorageUnavailable, attempts=None, timeout=PATIENCE_SECONDS).__aiter__()
