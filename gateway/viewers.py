"""Who is watching: a header or a signed cookie, and behind either a random pseudonym that alone enters the log."""

import re
import secrets
from collections import OrderedDict
from typing import Any

from aiohttp import web
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from compose.settings import Settings
from gateway.answers import answer
from gateway.keys import SETTINGS, VIEWERS
from gateway.problems import Handler, Problem
from projections.sinks.postgres import reaching_postgres

HEADER = "X-Viewer-Id"
COOKIE = "et_viewer"
COOKIE_SECONDS = 365 * 24 * 3600
HEADER_VALUE = re.compile(r"[A-Za-z0-9._-]{1,64}")
REMEMBERED = 20_000  # pseudonyms a process keeps at hand
NEW_COOKIE = "new_viewer_cookie"

FIND = "select pseudonym from viewers where viewer_key = $1"
# On a conflict nothing is returned: then the row of whoever was faster is read.
ADD = "insert into viewers (viewer_key, pseudonym) values ($1, $2) on conflict (viewer_key) do nothing returning pseudonym"


class Viewers:
    """The viewer key table, with the pseudonyms used most recently at hand. Raises StoreUnavailable when Postgres is down."""

    def __init__(self, pool: Any, settings: Settings) -> None:
        self._pool = pool
        self._key = OctKey.import_key(b"viewer-cookie:" + settings.secret_key.get_secret_value().encode())
        self._at_hand: OrderedDict[str, str] = OrderedDict()

    async def pseudonym(self, viewer_key: str) -> str:
        """The pseudonym behind `viewer_key`, made at the first time."""
        if known := self._at_hand.get(viewer_key):
            self._at_hand.move_to_end(viewer_key)
            return known
        with reaching_postgres():
            found: str | None = await self._pool.fetchval(FIND, viewer_key)
            while found is None:
                found = await self._pool.fetchval(
                    ADD, viewer_key, secrets.token_urlsafe(16)
                ) or await self._pool.fetchval(FIND, viewer_key)
        self._at_hand[viewer_key] = found
        if len(self._at_hand) > REMEMBERED:
            self._at_hand.popitem(last=False)
        return found

    def new_cookie(self) -> str:
        """A cookie that nobody has; signed, so that none can be made up."""
        return jws.serialize_compact({"alg": "HS256"}, secrets.token_urlsafe(16).encode(), self._key)

    def read_cookie(self, cookie: str) -> str | None:
        """The viewer key of a cookie; None for one that we did not sign."""
        try:
            read = jws.deserialize_compact(cookie.encode(), self._key, algorithms=["HS256"])
        except (JoseError, ValueError):
            return None
        return f"cookie:{read.payload.decode()}"


def viewer_key(request: web.Request) -> str | None:
    """What the request says of its viewer: the header before the cookie, None for neither. Raises Problem for a bad header.

    A cookie that is not ours counts as none: it is replaced when one is needed.
    """
    header = request.headers.get(HEADER)
    if header is not None:
        if not HEADER_VALUE.fullmatch(header):
            detail = "must be 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen"
            raise Problem(400, "Bad viewer", f"{HEADER} {detail}", [{"header": HEADER, "detail": detail}])
        return f"header:{header}"
    cookie = request.cookies.get(COOKIE)
    return request.app[VIEWERS].read_cookie(cookie) if cookie else None


async def known_viewer(request: web.Request) -> str | None:
    """The pseudonym of who is watching; None for somebody who shows neither header nor cookie."""
    key = viewer_key(request)
    return await request.app[VIEWERS].pseudonym(key) if key else None


async def viewer_of(request: web.Request) -> str:
    """The pseudonym of who is watching; who shows neither header nor cookie is given a cookie with the answer."""
    return await request.app[VIEWERS].pseudonym(ensure_viewer(request))


def ensure_viewer(request: web.Request) -> str:
    """The viewer key of the request; a viewer without one is given a cookie with the answer."""
    key = viewer_key(request)
    if key is None:
        viewers = request.app[VIEWERS]
        cookie = request[NEW_COOKIE] = viewers.new_cookie()
        key = viewers.read_cookie(cookie)
        assert key is not None
    return key


@web.middleware
async def cookies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Sets the cookie that `ensure_viewer` has made, for pages and answers alike."""
    response = await handler(request)
    if (cookie := request.get(NEW_COOKIE)) and not response.prepared:
        secure = request.app[SETTINGS].gateway_url.scheme == "https"
        response.set_cookie(COOKIE, cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="Lax", secure=secure)
    return response


async def get_viewer(request: web.Request) -> web.Response:
    """`GET /api/viewer`: the pseudonym of who is watching, by which other services speak of them in events."""
    return answer({"viewer_id": await viewer_of(request)})
