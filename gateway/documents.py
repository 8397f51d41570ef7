"""What describes us: the HTTP contract and the events."""

from aiohttp import web

from gateway.keys import OPENAPI
from gateway.problems import not_found
from schemas.events import EVENTS
from schemas.publishing import PUBLISHED
from schemas.upcasters import UPCASTERS


async def openapi(request: web.Request) -> web.Response:
    """`GET /openapi.json`: the HTTP contract as OpenAPI 3.1."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


async def asyncapi(_: web.Request) -> web.Response:
    """`GET /asyncapi.yaml`: the events as AsyncAPI 3."""
    return web.Response(body=PUBLISHED.joinpath("asyncapi.yaml").read_bytes(), content_type="application/yaml")


async def json_schema(request: web.Request) -> web.Response:
    """`GET /schemas/{type}.json`: the JSON Schema of one event, of an older version too."""
    name = request.match_info["name"]
    if name not in EVENTS and name not in UPCASTERS:
        raise not_found("event type", name)
    return web.Response(body=PUBLISHED.joinpath(f"{name}.json").read_bytes(), content_type="application/schema+json")
