"""What a worker says of itself over HTTP: `/live`, `/ready`, `/metrics`."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from compose.metrics import REGISTRY, exposed

logger = structlog.get_logger(__name__)


@asynccontextmanager
async def status_page(host: str, port: int, waits_for: Callable[[], Iterable[str]]) -> AsyncIterator[None]:
    """Answers while it is open; nothing for port 0. `waits_for` tells in sentences why the process does not do its work."""
    if not port:
        yield
        return

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        why = list(waits_for())
        return web.json_response(
            {"status": "unavailable" if why else "ok", "waiting_for": why}, status=503 if why else 200
        )

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposed(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    process = ProcessCollector(registry=REGISTRY)
    app = web.Application()
    app.add_routes([web.get("/live", live), web.get("/ready", ready), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        logger.info("tells of itself", host=host, port=port)
        yield
    finally:
        await runner.cleanup()
        REGISTRY.unregister(process)
