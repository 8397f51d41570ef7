"""A film of any size goes through the gateway without being held: its peak memory is measured while large uploads run."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, FormData

from compose.local.ports import is_free
from compose.settings import Settings
from tests.servers import Servers
from tests.uploading import provision_gateway

pytestmark = pytest.mark.usefixtures("kafka", "postgres", "s3")

MIB = 2**20
ALLOWED_BYTES = 64 * MIB
FILM_BYTES = int(os.environ.get("FILM_BYTES", 320 * MIB))
BLOCK = os.urandom(MIB)
MOVIE = {"title": "Shoah", "content_type": "documentary"}


@pytest.fixture(scope="module")
def process(servers: Servers, kafka: None, postgres: None, s3: None) -> Iterator[tuple[str, int]]:
    """A gateway of one process: its address and its process id."""
    settings: Settings = servers.settings(f"{servers.prefix}memory_")
    asyncio.run(provision_gateway(settings))
    port = next(port for port in range(22_100, 22_200) if is_free(port))
    environment = {
        **os.environ,
        **servers.endpoints(settings.prefix),
        "ET_GATEWAY_PORT": str(port),
        "ET_GATEWAY_PROCESSES": "1",
    }
    gateway = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment)
    yield f"http://127.0.0.1:{port}", gateway.pid
    gateway.terminate()
    gateway.wait(30)


@pytest.fixture
async def http(process: tuple[str, int]) -> AsyncIterator[ClientSession]:
    async with ClientSession(process[0], timeout=ClientTimeout(total=None)) as http:
        await until_up(http)
        await send_form(http, MIB)  # what a first upload loads stays
        yield http


async def until_up(http: ClientSession) -> None:
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            async with http.get("/live") as answer:
                if answer.status == 200:
                    return
        except ClientError:
            pass
        assert asyncio.get_running_loop().time() < deadline, "the gateway does not start"
        await asyncio.sleep(0.1)


def memory(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def begin_peak(pid: int) -> None:
    """The peak starts anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def blocks(size: int) -> AsyncIterator[bytes]:
    while size:
        block = BLOCK[: min(size, MIB)]
        yield block
        size -= len(block)


async def send_form(http: ClientSession, size: int) -> None:
    form = FormData(MOVIE)
    form.add_field("file", blocks(size), filename="shoah.mp4", content_type="video/mp4")
    async with http.post("/api/videos/upload", data=form) as answer:
        assert answer.status == 202, await answer.text()


async def send_parts(http: ClientSession, size: int, side_by_side: int) -> None:
    async with http.post("/api/multipart/initiate", json={**MOVIE, "filename": "shoah.mp4", "size": size}) as answer:
        assert answer.status == 201, await answer.text()
        told = await answer.json()
    waiting = list(range(1, told["total_parts"] + 1))

    async def send() -> None:
        while waiting:
            number = waiting.pop()
            length = min(told["part_size"], size - (number - 1) * told["part_size"])
            query = {"upload_id": told["upload_id"], "part_number": number}
            headers = {"Content-Length": str(length)}
            async with http.post("/api/multipart/part", params=query, data=blocks(length), headers=headers) as answer:
                assert answer.status == 200, await answer.text()

    await asyncio.gather(*(send() for _ in range(side_by_side)))
    async with http.post("/api/multipart/complete", json={"upload_id": told["upload_id"]}) as answer:
        assert answer.status == 202, await answer.text()


async def growth(pid: int, sending: "asyncio.Future[None]") -> int:
    """How far the peak rose above what was resident before, in bytes."""
    before = memory(pid, "VmRSS")
    begin_peak(pid)
    await sending
    grown = memory(pid, "VmHWM") - before
    print(f"{FILM_BYTES / MIB:,.0f} MiB: peak {grown / MIB:+.1f} MiB over {before / MIB:.1f} MiB")
    return grown


async def test_four_parts_side_by_side_are_never_held(http: ClientSession, process: tuple[str, int]) -> None:
    assert await growth(process[1], asyncio.ensure_future(send_parts(http, FILM_BYTES, 4))) < ALLOWED_BYTES


async def test_a_form_with_a_large_film_is_never_held(http: ClientSession, process: tuple[str, int]) -> None:
    assert await growth(process[1], asyncio.ensure_future(send_form(http, FILM_BYTES))) < ALLOWED_BYTES
