"""The wiring: the application, one `cleanup_ctx` a resource, the middlewares."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
from aiohttp import web
from structlog.contextvars import bound_contextvars
from uuid_utils import uuid7

from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.log import open_log
from compose.outgoing import open_outgoing
from compose.settings import Settings
from compose.storage import open_storage
from compose.viewers import ViewerKeys
from compose.webhooks import Webhooks
from gateway.delivery import Shelf
from gateway.freshness import open_freshness, tell_stale
from gateway.health import measure
from gateway.keys import (
    CATALOGUE,
    CHRONICLE,
    ELASTICSEARCH,
    EXPLANATIONS,
    FRESHNESS,
    LEADERBOARD,
    LOG,
    OPENAPI,
    OUTGOING,
    PAST,
    POSITIONS,
    POSTGRES,
    RECORDS,
    REDIS,
    REFRESH,
    RESUME,
    SEARCH,
    SETTINGS,
    SETTLED,
    SHELF,
    STATISTICS,
    STORAGE,
    TOP_STREAMS,
    VERSIONS,
    VIEWERS,
    WEBHOOKS,
)
from gateway.leaderboard import TopStreams
from gateway.openapi import document
from gateway.pages import pages
from gateway.pages import routes as page_routes
from gateway.pages import setup as setup_pages
from gateway.problems import Handler, problems
from gateway.routes import routes
from gateway.viewers import cookies, open_viewers
from projections.queries.catalogue import Catalogue
from projections.queries.chronicle import Chronicle
from projections.queries.explanation import Explanations
from projections.queries.leaderboard import Leaderboard
from projections.queries.past import Past
from projections.queries.positions import Positions
from projections.queries.resume import Resume
from projections.queries.search import Search
from projections.queries.statistics import Statistics
from projections.queries.versions import open_versions
from projections.queries.viewers import ViewerRecords

SOURCE = "/gateway"

logger = structlog.get_logger(__name__)


def build_app(settings: Settings) -> web.Application:
    """The gateway on the servers of `settings`. Opening connects to nothing, so a server that is down stops no start."""
    app = web.Application(
        middlewares=[measure, identify, one_version, cookies, pages, problems], client_max_size=2**63 - 1
    )
    app[SETTINGS] = settings
    app[SHELF] = Shelf()
    app[SETTLED] = {}
    app[OPENAPI] = document(routes())
    app.add_routes([*routes(), *page_routes()])
    setup_pages(app)
    app.cleanup_ctx.extend(
        [
            resource(POSTGRES, lambda: open_postgres(settings)),
            resource(REDIS, lambda: open_redis(settings)),
            resource(ELASTICSEARCH, lambda: open_elasticsearch(settings)),
            resource(LOG, lambda: open_log(settings, SOURCE)),
            resource(OUTGOING, lambda: open_outgoing(settings)),
            resource(STORAGE, lambda: open_storage(settings)),
            resource(VERSIONS, lambda: open_versions(app[POSTGRES])),
            resource(VIEWERS, lambda: open_viewers(ViewerKeys(app[POSTGRES]), settings)),
            queries,
            resource(
                FRESHNESS,
                lambda: open_freshness(
                    settings, app[VERSIONS], app[LOG], app[POSTGRES], app[REDIS], app[ELASTICSEARCH]
                ),
            ),
            top_streams,
        ]
    )
    app.on_response_prepare.append(tell_stale)
    app.on_shutdown.append(end_streams)
    return app


def resource(
    key: web.AppKey[Any], open_it: Callable[[], AbstractAsyncContextManager[Any]]
) -> Callable[[web.Application], AsyncIterator[None]]:
    """A resource that lives as long as the application, under `key`."""

    async def keep(app: web.Application) -> AsyncIterator[None]:
        async with open_it() as opened:
            app[key] = opened
            yield

    return keep


async def queries(app: web.Application) -> AsyncIterator[None]:
    """Reads, each handed its open client."""
    prefix, versions = app[SETTINGS].prefix, app[VERSIONS]
    app[CATALOGUE] = Catalogue(app[POSTGRES], versions)
    app[CHRONICLE] = Chronicle(app[POSTGRES], versions)
    app[EXPLANATIONS] = Explanations(app[POSTGRES], app[REDIS], prefix, versions)
    app[PAST] = Past(app[POSTGRES], versions)
    app[POSITIONS] = Positions(app[POSTGRES], versions)
    app[STATISTICS] = Statistics(app[POSTGRES], versions)
    app[WEBHOOKS] = Webhooks(app[POSTGRES])
    app[RECORDS] = ViewerRecords(app[POSTGRES], versions)
    app[LEADERBOARD] = Leaderboard(app[REDIS], prefix, versions)
    app[RESUME] = Resume(app[REDIS], prefix, versions)
    app[SEARCH] = Search(app[ELASTICSEARCH], prefix, versions)
    app[REFRESH] = {}
    yield


async def top_streams(app: web.Application) -> AsyncIterator[None]:
    """The boards that somebody follows."""
    app[TOP_STREAMS] = TopStreams(app)
    yield


@web.middleware
async def one_version(request: web.Request, handler: Handler) -> web.StreamResponse:
    """An answer is of one version of each projection, from the wait for a write to the last read, whatever is switched meanwhile."""
    with request.app[VERSIONS].one_answer():
        return await handler(request)


async def end_streams(app: web.Application) -> None:
    """Before the requests under way are waited for: a stream would never end by itself."""
    await app[TOP_STREAMS].close()


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer and every log line carries the request's id, the client's own where it sent one; browsers guess no types."""
    sent = request.headers.get("X-Request-Id", "")
    request_id = sent if sent.isascii() and sent.isprintable() and 0 < len(sent) <= 64 else str(uuid7())
    with bound_contextvars(request_id=request_id):
        response = await handler(request)
        logger.debug("answered", method=request.method, path=request.path, status=response.status)
    if not response.prepared:
        response.headers.setdefault("X-Request-Id", request_id)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
