"""Who is watching: a header or a signed cookie, and behind either a random pseudonym that alone enters the log."""

import asyncio
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from compose.ending import end
from compose.settings import Settings
from compose.viewers import ViewerKeys
from gateway.answers import accepted, answer
from gateway.delivery import copy
from gateway.keys import LOG, RECORDS, SETTINGS, VIEWERS
from gateway.problems import Handler, Problem
from projections.queries.viewers import export

HEADER = "X-Viewer-Id"
COOKIE = "et_viewer"
COOKIE_SECONDS = 365 * 24 * 3600
HEADER_VALUE = re.compile(r"[A-Za-z0-9._-]{1,64}")
REMEMBERED = 20_000  # pseudonyms a process keeps at hand
NEW_COOKIE = "new_viewer_cookie"


class Viewers:
    """Pseudonyms, those used most recently at hand, and cookies. Raises StoreUnavailable when Postgres is down."""

    def __init__(self, keys: ViewerKeys, settings: Settings) -> None:
        self.keys = keys
        self._key = OctKey.import_key(b"viewer-cookie:" + settings.secret_key.get_secret_value().encode())
        self._at_hand: OrderedDict[str, str] = OrderedDict()
        self._gone = 0

    async def pseudonym(self, viewer_key: str) -> str:
        """The pseudonym behind `viewer_key`, made at the first time."""
        if known := self._at_hand.get(viewer_key):
            self._at_hand.move_to_end(viewer_key)
            return known
        gone = self._gone
        found = await self.keys.give(viewer_key)
        # What was read before somebody was forgotten may be theirs.
        if gone == self._gone:
            self._at_hand[viewer_key] = found
        if len(self._at_hand) > REMEMBERED:
            self._at_hand.popitem(last=False)
        return found

    def let_go(self, viewer_key: str | None) -> None:
        """The row of this viewer is gone, or that of anyone."""
        self._gone += 1
        if viewer_key is None:
            self._at_hand.clear()
        else:
            self._at_hand.pop(viewer_key, None)

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


async def forget_viewer(request: web.Request) -> web.Response:
    """`DELETE /api/viewer`: forget who is watching; whoever comes back with the same header or cookie is somebody new."""
    key, viewer_id = await _somebody_known(request)
    viewers = request.app[VIEWERS]
    response = accepted(request, await viewers.keys.forget(viewer_id, request.app[LOG]))
    viewers.let_go(key)
    response.del_cookie(COOKIE, httponly=True, samesite="Lax")
    return response


async def export_viewer(request: web.Request) -> web.StreamResponse:
    """`GET /api/viewer/export`: everything that is held of who is watching."""
    _, viewer_id = await _somebody_known(request)
    response = web.StreamResponse(headers={"Content-Disposition": 'attachment; filename="viewer.json"'})
    response.content_type = "application/json"
    given_at = await request.app[VIEWERS].keys.given_at(viewer_id)
    return await copy(request, response, export(request.app[RECORDS], viewer_id, given_at))


async def _somebody_known(request: web.Request) -> tuple[str, str]:
    """The viewer key of the request and the pseudonym behind it. Raises Problem where there is none: nobody is made known by asking."""
    key = viewer_key(request)
    if key is None:
        raise nobody_asks("this")
    viewer_id = await request.app[VIEWERS].keys.find(key)
    if viewer_id is None:
        detail = "nothing is held of who asks: this viewer has never watched anything here, or was forgotten"
        raise Problem(404, "No such viewer", detail)
    return key, viewer_id


def nobody_asks(what: str) -> Problem:
    """401 for a request without header and cookie."""
    detail = f"{what} needs to know who asks: send {HEADER}, or the cookie that a page or a saved position sets"
    return Problem(401, "Who is watching?", detail, [{"header": HEADER, "detail": "is missing"}])


@asynccontextmanager
async def open_viewers(keys: ViewerKeys, settings: Settings) -> AsyncIterator[Viewers]:
    """Hears of the forgotten as long as it is open."""
    viewers = Viewers(keys, settings)
    following = asyncio.create_task(keys.follow(viewers.let_go))
    try:
        yield viewers
    finally:
        await end(following)
