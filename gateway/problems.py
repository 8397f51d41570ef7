"""Errors as RFC 9457 problem documents: what is wrong, with which field, and what to do next."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
import structlog
from aiohttp import web
from uuid_utils import uuid7

from compose.log import LogUnavailable
from compose.storage import StorageUnavailable
from projections.queries.raw import OtherRule
from projections.sinks.sink import StoreUnavailable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2

logger = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Exception):
    """An answer that is no success. `errors` has an entry for each bad field: `pointer` into the body (RFC 6901), `parameter` or `header`.

    `more` is added to the document: the ids that were minted, say, so that the same request can be sent again.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def response(self) -> web.Response:
        """The document, as it is sent."""
        body = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail or self.title}
        if self.errors:
            body["errors"] = list(self.errors)
        return web.Response(
            status=self.status, body=orjson.dumps(body | self.more), content_type=MEDIA_TYPE, headers=self.headers
        )


def unavailable(what: str, why: str, seconds: float = RETRY_AFTER_SECONDS, **more: Any) -> Problem:
    """503: it may be sent again, the same, after `Retry-After`."""
    headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
    return Problem(503, f"{what} is unavailable", why, headers=headers, more=more)


def not_found(what: str, name: str) -> Problem:
    """404, for an id that nothing answers to."""
    return Problem(404, f"No such {what}", f"there is no {what} {name!r}")


CLIENT_GONE = 499  # nginx's word for it; only our metrics see it


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever is raised becomes a problem document; what nobody expected becomes a 500 whose id the log also shows."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _of_aiohttp(request, error).response()
    except (StoreUnavailable, LogUnavailable) as error:
        what = "The log" if isinstance(error, LogUnavailable) else "A store"
        return unavailable(what, str(error), error.retry_after_seconds).response()
    except OtherRule as error:
        return unavailable("That moment", str(error)).response()
    except StorageUnavailable as error:
        return unavailable("The object store", str(error)).response()
    except ConnectionResetError:
        # The client has gone, and nobody reads this: aiohttp would take the error for a fault of ours.
        return web.Response(status=CLIENT_GONE)
    except asyncio.CancelledError:
        raise
    except Exception:
        error_id = str(uuid7())
        logger.exception("a handler failed", error_id=error_id, method=request.method, path=request.path)
        detail = f"this is a fault of ours; it is in our log as {error_id}"
        return Problem(500, "Something went wrong", detail, more={"error_id": error_id}).response()


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> Problem:
    headers = {name: value for name, value in error.headers.items() if name.lower() in ("allow", "retry-after")}
    details = {
        404: f"there is nothing at {request.path!r}",
        405: f"{request.method} is not answered here, but {headers.get('Allow', 'no other method')} is",
        413: "the body is larger than is read here",
    }
    return Problem(error.status, error.reason, details.get(error.status, error.reason), headers=headers)
