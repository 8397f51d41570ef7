"""Reads through the gateway: top-K against a constant route, a hot segment against nginx."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.load import requests_per_second, with_children
from benchmarks.pairs import Comparison, Measured, alternate
from compose.settings import Settings

START_SECONDS = 10.0

NGINX = """
daemon off; worker_processes {processes}; pid {folder}/nginx.pid; error_log {folder}/error.log; user root;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=100;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  types {{ video/mp4 mp4 m4s; }}
  server {{ listen 127.0.0.1:{port} reuseport; root {folder}/www; }}
}}
"""


async def compare_top(settings: Settings, gateway_pid: int) -> list[Comparison]:
    """Top 10 of the day, against as many bytes from a constant route in as many processes."""
    url = f"{str(settings.gateway_url).rstrip('/')}/api/analytics/top?k=10&timeframe=day"
    before = await _fetch(url)
    async with _constant(settings.gateway_processes, len(before)) as (constant_url, constant_pid):

        async def ours() -> Measured:
            measured = await requests_per_second(url, with_children(gateway_pid))
            source = b'"source":"leaderboard"' in (await _fetch(url)).replace(b" ", b"")
            return measured if source else measured._replace(wrong="the top list came from elsewhere")

        return await alternate(
            "top-K read",
            "requests/s",
            ours,
            {"aiohttp, a constant": lambda: requests_per_second(constant_url, with_children(constant_pid))},
        )


async def compare_segment(settings: Settings, gateway_pid: int) -> list[Comparison]:
    """One segment of the lowest rung of a film that plays, again and again; nginx serves the same bytes from its disk."""
    gateway = str(settings.gateway_url).rstrip("/")
    segment_url = await _a_segment(gateway)
    body = await _fetch(segment_url)
    async with _nginx(settings.gateway_processes, body) as (nginx_url, nginx_pid):

        async def ours() -> Measured:
            measured = await requests_per_second(segment_url, with_children(gateway_pid))
            return measured if await _fetch(segment_url) == body else measured._replace(wrong="the segment changed")

        async def theirs() -> Measured:
            measured = await requests_per_second(nginx_url, with_children(nginx_pid))
            return measured if await _fetch(nginx_url) == body else measured._replace(wrong="nginx serves other bytes")

        return await alternate(
            f"a hot segment of {len(body):,} bytes", "requests/s", ours, {"nginx, from disk": theirs}
        )


async def _a_segment(gateway: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{gateway}/api/videos?limit=100") as response:
        items = (await response.json())["items"]
    film = next((item for item in items if item["status"] == "COMPLETED"), None)
    if film is None:
        raise RuntimeError("no film plays; load the samples with make up")
    playlist = f"{gateway}/api/videos/{film['id']}/hls/240p/playlist.m3u8"
    names = [line for line in (await _fetch(playlist)).decode().splitlines() if line and not line.startswith("#")]
    return f"{playlist.rsplit('/', 1)[0]}/{names[0]}"


async def _fetch(url: str) -> bytes:
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as response:
        return await response.read()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _constant(processes: int, size: int) -> AsyncIterator[tuple[str, int]]:
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.constant", str(port), str(processes), str(size)]
    async with _running(command, port) as pid:
        yield f"http://127.0.0.1:{port}/", pid


@asynccontextmanager
async def _nginx(processes: int, body: bytes) -> AsyncIterator[tuple[str, int]]:
    port, folder = _free_port(), Path(tempfile.mkdtemp(prefix="bench-nginx-"))
    folder.joinpath("www").mkdir()
    folder.joinpath("www/segment.m4s").write_bytes(body)
    folder.joinpath("nginx.conf").write_text(NGINX.format(processes=processes, folder=folder, port=port))
    try:
        async with _running(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], port) as pid:
            yield f"http://127.0.0.1:{port}/segment.m4s", pid
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def _running(command: list[str], port: int) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        await _until_it_listens(process, port)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


async def _until_it_listens(process: asyncio.subprocess.Process, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if process.returncode is not None:
            raise RuntimeError(f"the server for port {port} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port} after {START_SECONDS:g} s")
        await asyncio.sleep(0.05)
