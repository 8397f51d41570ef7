"""Top films: asked for once, or told whenever they change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

import orjson
import structlog
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response
from pydantic import Field

from gateway.answers import answer, read_query, whole
from gateway.freshness import After, wait_for_writes
from gateway.keys import CATALOGUE, CHRONICLE, LEADERBOARD, PAST, STATISTICS, TOP_STREAMS, VERSIONS
from gateway.metrics import ANSWERS, STREAM_LISTENERS
from gateway.past import AsOf, only_now, settled
from gateway.problems import unavailable
from projections.queries.leaderboard import Timeframe, Top, Views
from projections.sinks.sink import StoreUnavailable

STALE_AFTER = timedelta(seconds=60)  # a board that no worker has ticked for so long is left for the aggregates
CHANGES_A_SECOND = 4
MAX_STREAMS = 1_000  # of one process
PING_SECONDS = 5.0  # so long at most is written to somebody who left

logger = structlog.get_logger(__name__)

Wait = Callable[..., Awaitable[None]]
"""Waits until the projections named have folded what the request wants to see."""


class Board(After):
    """Which window, and how many films of it."""

    k: Annotated[int, Field(ge=1, le=1_000), whole] = 10
    timeframe: Timeframe = "day"


class BoardAsOf(Board, AsOf):
    """As it is, or as it was."""


async def top(request: web.Request) -> web.Response:
    """`GET /api/analytics/top`: the films viewed most in a window."""
    board = read_query(request, BoardAsOf)
    if moment := await settled(request, board, "views", "chronicle"):
        found = await request.app[PAST].top(board.k, board.timeframe, moment)
        films = await request.app[CHRONICLE].find_many([item.video_id for item in found.items], moment)
        return answer(_told(found, board.k, {video_id: film.title for video_id, film in films.items()}))
    return answer(await read_board(request.app, board.k, board.timeframe, partial(wait_for_writes, request, board)))


async def at_once(*_: str) -> None:
    """Nobody asked for a write to be seen."""


async def read_board(app: web.Application, k: int, timeframe: Timeframe, wait: Wait = at_once) -> dict[str, Any]:
    """The board as clients are told of it, from Redis or from what it falls back to; `wait` is for who answers."""
    now = datetime.now(UTC)
    try:
        await wait("leaderboard")
        found = await app[LEADERBOARD].top(k, timeframe)
        if now - found.as_of > STALE_AFTER:
            raise StoreUnavailable("redis", f"the leaderboard stands still since {found.as_of:%F %T}")
    except StoreUnavailable as error:
        logger.warning("top films come from the aggregates", why=str(error))
        await wait("views" if timeframe == "hour" else "statistics", "catalogue")
        found = await app[STATISTICS].top(k, timeframe, now)
    ANSWERS.labels("top", found.source).inc()
    return _told(found, k, await _titles(app, found, wait))


async def film_views(app: web.Application, video_id: str, wait: Wait = at_once) -> Views:
    """A film's views in every window, from the leaderboard or from what it falls back to; `wait` is for who answers."""
    now = datetime.now(UTC)
    try:
        await wait("leaderboard")
        views = await app[LEADERBOARD].views(video_id)
        if now - views.as_of > STALE_AFTER:
            raise StoreUnavailable("redis", f"the leaderboard stands still since {views.as_of:%F %T}")
    except StoreUnavailable:
        await wait("statistics", "views")
        views = await app[STATISTICS].views(video_id, now)
    ANSWERS.labels("views", views.source).inc()
    return views


def _as_json(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


async def _titles(app: web.Application, found: Top, wait: Wait) -> dict[str, str | None]:
    try:
        await wait("catalogue")
        videos = await app[CATALOGUE].find_many(item.video_id for item in found.items)
    except StoreUnavailable:
        return {}
    return {video_id: video.title for video_id, video in videos.items()}


def _told(found: Top, k: int, titles: dict[str, str | None]) -> dict[str, Any]:
    return {
        "timeframe": found.timeframe,
        "k": k,
        "from": found.from_,
        "to": found.to,
        "as_of": found.as_of,
        "source": found.source,
        "items": [
            {"rank": item.rank, "video_id": item.video_id, "title": titles.get(item.video_id), "views": item.views}
            for item in found.items
        ],
    }


class TopStreams:
    """One reading of each board for all who follow it: the board is read four times a second at most, however many listen."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._listeners: dict[tuple[int, Timeframe], set[asyncio.Queue[bytes | None]]] = {}
        self._readers: dict[tuple[int, Timeframe], asyncio.Task[None]] = {}
        self._latest: dict[tuple[int, Timeframe], bytes] = {}

    @contextlib.asynccontextmanager
    async def listen(
        self, k: int, timeframe: Timeframe, first: bytes | None = None
    ) -> "AsyncIterator[asyncio.Queue[bytes | None]]":
        """A queue that holds the newest board that was not taken yet, and no older one; None once the gateway stops.

        `first` was read just now, for somebody who waited for their write.
        """
        if sum(map(len, self._listeners.values())) >= MAX_STREAMS:
            raise unavailable("The stream", f"{MAX_STREAMS} follow already; ask again with GET /api/analytics/top")
        board = k, timeframe
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._listeners.setdefault(board, set()).add(queue)
        STREAM_LISTENERS.inc()
        if first is not None:
            self._latest[board] = first
        if board in self._latest:
            queue.put_nowait(self._latest[board])
        if board not in self._readers:
            self._readers[board] = asyncio.create_task(self._read(board))
        try:
            yield queue
        finally:
            STREAM_LISTENERS.dec()
            self._listeners[board].discard(queue)
            if not self._listeners[board]:
                del self._listeners[board]
                self._latest.pop(board, None)
                self._readers.pop(board).cancel()

    async def close(self) -> None:
        """Ends every stream, so that none of them holds up the end of the process."""
        readers = list(self._readers.values())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for board in list(self._listeners):
            self._tell(board, None)

    async def _read(self, board: tuple[int, Timeframe]) -> None:
        told: Any = None
        while True:
            try:
                # The task was begun by some request, and outlives it.
                with self._app[VERSIONS].one_answer():
                    body = await read_board(self._app, *board)
                # What only the clock changes is no change of the board.
                seen = body["source"], body["items"], body["from"]
                if seen != told:
                    told = seen
                    self._latest[board] = _as_json(body)
                    self._tell(board, self._latest[board])
            except StoreUnavailable as error:
                logger.warning("a board cannot be read", board=board, why=str(error))
            except Exception:
                logger.exception("a board cannot be read", board=board)
            await asyncio.sleep(1 / CHANGES_A_SECOND)

    def _tell(self, board: tuple[int, Timeframe], body: bytes | None) -> None:
        for queue in self._listeners.get(board, ()):
            with contextlib.suppress(asyncio.QueueEmpty):
                queue.get_nowait()
            queue.put_nowait(body)


async def follow_top(request: web.Request) -> web.StreamResponse:
    """`GET /api/analytics/top/stream`: the same body as `top`, as a server-sent event whenever it changes."""
    board = read_query(request, Board)
    only_now(request, "a board that is followed")
    first = None
    if board.after is not None:
        wait = partial(wait_for_writes, request, board)
        first = _as_json(await read_board(request.app, board.k, board.timeframe, wait))
    async with (
        request.app[TOP_STREAMS].listen(board.k, board.timeframe, first) as changes,
        sse_response(request, ping_interval=PING_SECONDS) as response,
    ):
        sending = asyncio.create_task(_send(changes, response))
        try:
            # Until a ping finds nobody there: a board that stands still would never be written to who left.
            await response.wait()
        finally:
            sending.cancel()
    return response


async def _send(changes: asyncio.Queue[bytes | None], response: EventSourceResponse) -> None:
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while body := await changes.get():
            await response.send(body.decode())
    response.stop_streaming()
