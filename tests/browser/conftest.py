"""A browser before the running system, and films in it. What a test saw last lies in `test-output/browser/`."""

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from compose.local.stack import ROOT
from compose.settings import Settings
from tests.films import H264, film

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]
PICTURES = ROOT / "test-output" / "browser"
PATIENCE_SECONDS = 30
MIB = 2**20
MARKUP = "<img src=x onerror=alert(1)> & Sons"
expect.set_options(timeout=PATIENCE_SECONDS * 1000)


async def until(page: Page, claim: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns when the expression `claim` is true in the page. Its policy forbids eval, which playwright's own waiting needs."""
    deadline = time.monotonic() + seconds
    while not await page.evaluate(claim):
        assert time.monotonic() < deadline, f"not true within {seconds} s: {claim}"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def base(system: Settings) -> str:
    """Where the gateway answers."""
    return str(system.gateway_url).rstrip("/")


@pytest.fixture
async def context(base: str, request: pytest.FixtureRequest) -> AsyncIterator[BrowserContext]:
    """A browser of a viewer who was never here."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        context = await browser.new_context(base_url=base, viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        yield context
        for number, page in enumerate(context.pages):
            await page.screenshot(path=PICTURES / f"{request.node.name}{number or ''}.png")
        await browser.close()


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


@pytest.fixture(scope="session")
def films(base: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Uploads a film once a session and returns its id when it has ended, well or not."""
    folder = tmp_path_factory.mktemp("films")
    ids: dict[str, str] = {}

    def find(title: str, seconds: float = 12, size: str = "640x360", rate: str = "12") -> str:
        if title not in ids:
            path = film(folder / f"{len(ids)}.mp4", seconds, size, rate)
            ids[title] = asyncio.run(upload(base, path, title))
        return ids[title]

    return find


@pytest.fixture(scope="session")
def film_id(films: Callable[..., str]) -> str:
    """A film of two segments and two qualities."""
    return films("The Long Corridor")


@pytest.fixture(scope="session")
def marked_film_id(films: Callable[..., str]) -> str:
    """A film whose title would be markup, were it not told as text."""
    return films(MARKUP, seconds=1, size="320x240")


@pytest.fixture(scope="session")
def long_film_id(films: Callable[..., str]) -> str:
    """A film long enough to be continued."""
    return films("A Slow Evening", seconds=50, size="320x240", rate="5")


async def upload(base: str, path: Path, title: str) -> str:
    """Upload through the API, and wait until the media worker is done with it."""
    form = aiohttp.FormData({"title": title, "content_type": "movie", "genre": "Drama", "release_year": "1994"})
    form.add_field("file", path.open("rb"), filename=path.name)
    async with aiohttp.ClientSession(base) as http:
        async with http.post("/api/videos/upload", data=form) as answer:
            assert answer.status == 202, await answer.text()
            video_id: str = (await answer.json())["video_id"]
        await ended(http, video_id)
    return video_id


async def ended(http: aiohttp.ClientSession, video_id: str) -> dict[str, Any]:
    """The film, once it is made or has failed."""
    deadline = time.monotonic() + 60
    while True:
        async with http.get(f"/api/videos/{video_id}") as answer:
            video: dict[str, Any] = await answer.json() if answer.status == 200 else {"status": answer.status}
        if video["status"] in ("COMPLETED", "FAILED"):
            return video
        assert time.monotonic() < deadline, f"the film {video_id} is still {video['status']}"
        await asyncio.sleep(0.1)


@pytest.fixture(scope="session")
def large_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of film that weighs five parts: its container ends in a box of nothing."""
    path = film(tmp_path_factory.mktemp("large") / "large film.mp4", 1, "320x240", extra=H264)
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", 21 * MIB, b"free") + bytes(21 * MIB - 8))
    return path
