"""Is it alive, is it ready, and what does it see of its servers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from compose.metrics import exposed
from gateway.answers import answer
from gateway.keys import ELASTICSEARCH, LOG, POSTGRES, REDIS, STORAGE
from gateway.metrics import REQUEST_SECONDS, REQUESTS
from gateway.problems import Handler

CHECK_SECONDS = 2.0
# Without one of these no film is found and no event is taken; without the others there are fallbacks.
NEEDED = ("kafka", "postgres")


async def health(request: web.Request) -> web.Response:
    """`GET /health`: each server with its latency; 503 when the gateway can't serve."""
    checks = await check_servers(request.app)
    down = [name for name, check in checks.items() if check["status"] != "ok"]
    serves = not set(down) & set(NEEDED)
    status = "ok" if not down else "degraded" if serves else "unavailable"
    return answer({"status": status, "checks": checks}, status=200 if serves else 503)


async def live(_: web.Request) -> web.Response:
    """`GET /live`: the process answers."""
    return answer({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """`GET /ready`: the gateway can serve."""
    checks = await check_servers(request.app)
    down = [name for name in NEEDED if checks[name]["status"] != "ok"]
    return answer({"status": "unavailable" if down else "ok", "waiting_for": down}, status=503 if down else 200)


async def metrics(_: web.Request) -> web.Response:
    """`GET /metrics`: the gateway, in Prometheus' words: all its processes together, whichever of them answers."""
    return web.Response(body=exposed(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def check_servers(app: web.Application) -> dict[str, dict[str, Any]]:
    """Asks each server something cheap, all at once, two seconds at most."""
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "kafka": lambda: app[LOG].ends([("videos", 0)]),
        "postgres": lambda: app[POSTGRES].fetchval("select 1", timeout=CHECK_SECONDS),
        "redis": lambda: app[REDIS].ping(),
        "elasticsearch": lambda: app[ELASTICSEARCH].cluster.health(timeout="1s"),
        "storage": lambda: app[STORAGE].ping(),
    }
    found = await asyncio.gather(*(_check(question) for question in questions.values()))
    return dict(zip(questions, found, strict=True))


async def _check(question: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await question()
    except TimeoutError:
        return {"status": "down", "error": f"no answer within {CHECK_SECONDS:g} s"}
    except Exception as error:  # whatever a client raises, the server did not answer
        return {"status": "down", "error": str(error) or type(error).__name__}
    return {"status": "ok", "latency_ms": round((time.monotonic() - began) * 1_000, 2)}


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts each answer by its route; ids stay out of the labels."""
    began = time.monotonic()
    status = 500
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        REQUESTS.labels(request.method, route, status).inc()
        REQUEST_SECONDS.labels(request.method, route).observe(time.monotonic() - began)
