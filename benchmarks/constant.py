"""`python -m benchmarks.constant PORT PROCESSES BYTES`: an aiohttp route that answers a constant, as bare as it can be."""

import asyncio
import multiprocessing
import sys

import uvloop
from aiohttp import web


async def serve(port: int, body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_port=True).start()
    await asyncio.Event().wait()


def run(port: int, size: int) -> None:
    uvloop.run(serve(port, b"x" * size))


if __name__ == "__main__":
    port, processes, size = map(int, sys.argv[1:])
    workers = [multiprocessing.Process(target=run, args=(port, size), daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
