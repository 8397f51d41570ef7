"""The handlers of the pages, their templates and static files."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web

from gateway.catalogue import find_video, told
from gateway.problems import MEDIA_TYPE, Handler, Problem
from gateway.viewers import ensure_viewer

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
# Nothing from elsewhere, no inline script. Blobs are what players feed the video element with. `unsafe-eval` lets who watches the pages
# from outside (Playwright's wait_for_function) ask them; without inline scripts there is nobody else to call it.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; media-src 'self' blob:; worker-src 'self' blob:; "
    "img-src 'self' data: blob:; connect-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
FOR_EVER = "public, max-age=31536000, immutable"


def setup(app: web.Application) -> None:
    """Gives `app` the templates."""
    aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=jinja2.select_autoescape(default=True),
        context_processors=[_context],
    )


def routes() -> list[web.RouteDef]:
    """The pages and their files."""
    return [
        web.get("/", home),
        web.get("/search", search),
        web.get("/upload", upload),
        web.get("/watch/{id:[A-Za-z0-9._:-]{1,64}}", watch),
        web.get("/docs", documents),
        web.get("/favicon.ico", favicon),
        web.get("/static/{version:[0-9a-f]{12}}/{path:[a-z0-9/._-]{1,100}}", static_file),
    ]


async def home(request: web.Request) -> web.Response:
    """`GET /`: what there is, the top films, what to go on watching."""
    return _page(request, "home.html", {})


async def search(request: web.Request) -> web.Response:
    """`GET /search?query=`: films by what a person types."""
    return _page(request, "search.html", {"query": request.query.get("query", "")[:300]})


async def upload(request: web.Request) -> web.Response:
    """`GET /upload`: send a film in, in parts, through a reload if need be."""
    return _page(request, "upload.html", {})


async def watch(request: web.Request) -> web.Response:
    """`GET /watch/{id}`: the film."""
    return _page(request, "watch.html", {"video": told(await find_video(request))})


async def documents(request: web.Request) -> web.Response:
    """`GET /docs`: the HTTP contract, to read and to try."""
    return _page(request, "docs.html", {})


async def favicon(_: web.Request) -> web.StreamResponse:
    return web.FileResponse(STATIC / "favicon.svg", headers={"Content-Type": "image/svg+xml"})


async def static_file(request: web.Request) -> web.StreamResponse:
    """A file under the version of all files together: its address changes when any of them does, so it is kept for ever."""
    path = (STATIC / request.match_info["path"]).resolve()
    if not path.is_relative_to(STATIC) or not path.is_file():
        raise web.HTTPNotFound
    current = request.match_info["version"] == static_version()
    return web.FileResponse(path, headers={"Cache-Control": FOR_EVER if current else "no-cache"})


@cache
def static_version() -> str:
    """A digest of every static file."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(STATIC).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


@web.middleware
async def pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A person who asked for a page is told of an error on one."""
    try:
        response = await handler(request)
    except Problem as problem:
        if not _wants_page(request):
            raise
        return _error_page(request, problem.status, problem.title, problem.detail)
    if response.status in (404, 500, 503) and response.content_type == MEDIA_TYPE and _wants_page(request):
        titles = {404: "Nothing here", 500: "Something went wrong", 503: "Back in a moment"}
        return _error_page(request, response.status, titles[response.status], "")
    return response


def _wants_page(request: web.Request) -> bool:
    return not request.path.startswith("/api/") and "text/html" in request.headers.get("Accept", "")


def _error_page(request: web.Request, status: int, title: str, detail: str) -> web.Response:
    return _page(request, "error.html", {"status": status, "title": title, "detail": detail}, status=status)


def _page(request: web.Request, template: str, context: dict[str, Any], *, status: int = 200) -> web.Response:
    if status == 200:
        ensure_viewer(request)
    response = aiohttp_jinja2.render_template(template, request, context, status=status)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


async def _context(request: web.Request) -> dict[str, Any]:
    return {"static": lambda path: f"/static/{static_version()}/{path}", "path": request.path}
