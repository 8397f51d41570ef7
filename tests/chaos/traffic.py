"""Who writes and who reads: four producers, two of them straight into Kafka as other services do, two through the gateway; and readers."""

import asyncio
import contextlib
import itertools
import random
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from compose.settings import Settings
from tests.chaos.history import READS, History, Kind

FILMS = [f"film-{n}" for n in range(6)]
VIEWERS = 5  # of each producer
NUMBERS_OF_ONE = 200_000  # a producer's numbers begin at a multiple of it, so that no two are alike
PAUSE_SECONDS = 0.03
PATIENCE_SECONDS = 4.0  # for an acknowledgement; then the outcome is unknown
MOST_TRIES = 6
NAMESPACE = "entertainmenttime"


class Producer:
    """Sends a write, hears of it, sends the next. One whose outcome is unknown is sent again, or given up: by the seed."""

    def __init__(self, name: str, number: int, history: History, seed: int) -> None:
        self.name = name
        self._history = history
        self._chance = random.Random(f"{seed}{name}")
        self._numbers = itertools.count(number * NUMBERS_OF_ONE + 1)

    kinds: tuple[Kind, ...] = ("view", "position")

    async def write(self, kind: Kind, number: int, occurred_at: datetime, film: str, viewer: int) -> Any:
        """Its place in the log; None when nobody knows. Raises Refused."""
        raise NotImplementedError

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            number, kind = next(self._numbers), self._chance.choice(self.kinds)
            occurred_at, film = datetime.now(UTC), self._chance.choice(FILMS)
            viewer = self._chance.randrange(VIEWERS)
            for _ in range(MOST_TRIES):
                self._history.note(self.name, "sent", kind, number)
                try:
                    place = await self.write(kind, number, occurred_at, film, viewer)
                except Refused as refused:
                    self._history.note(self.name, "refused", kind, number, why=str(refused))
                    break
                self._history.note(self.name, "acknowledged" if place else "unknown", kind, number, place=place)
                if place or self._chance.random() < 0.5:
                    break
                await asyncio.sleep(0.2)
            await asyncio.sleep(PAUSE_SECONDS)


class Refused(Exception):
    """The system said no, which it never should."""


class StraightToKafka(Producer):
    """Any other service with aiokafka: a producer that did not answer in time is left, and a new one opened."""

    kinds = ("view", "view", "view", "position", "position", "film")

    def __init__(
        self, name: str, number: int, history: History, seed: int, settings: Settings, *, is_idempotent: bool
    ) -> None:
        super().__init__(name, number, history, seed)
        self._settings = settings
        self._is_idempotent = is_idempotent
        self._producer: AIOKafkaProducer | None = None
        self._left: set[asyncio.Task[None]] = set()

    async def write(self, kind: Kind, number: int, occurred_at: datetime, film: str, viewer: int) -> Any:
        topic, key, event_type, data = _event(kind, number, film, f"{self.name}-viewer-{viewer}")
        value = orjson.dumps(data | {"occurred_at": occurred_at})
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{kind}-{number}".encode()),
            ("ce_source", b"/chaos"),
            ("ce_type", f"{NAMESPACE}.{event_type}.v1".encode()),
            ("content-type", b"application/json"),
        ]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._producer is None:
                    await self._open()
                assert self._producer is not None
                sent = await self._producer.send(self._settings.named(topic), value, key.encode(), headers=headers)
                sent.add_done_callback(_heard)
                recorded = await asyncio.shield(sent)
        except (KafkaError, TimeoutError, OSError):
            await self._leave()
            return None
        return [topic, recorded.partition, recorded.offset]

    async def _open(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap, acks="all", enable_idempotence=self._is_idempotent
        )
        try:
            await producer.start()
        except BaseException:
            await _stopped(producer)
            raise
        self._producer = producer

    async def _leave(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            task = asyncio.create_task(_stopped(producer))
            self._left.add(task)
            task.add_done_callback(self._left.discard)

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await super().run(stop)
        finally:
            await self._leave()
            await asyncio.gather(*self._left, return_exceptions=True)


def _heard(sent: asyncio.Future[Any]) -> None:
    """Nobody waits any more for what failed after our patience."""
    if not sent.cancelled():
        sent.exception()


async def _stopped(producer: AIOKafkaProducer) -> None:
    with contextlib.suppress(KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await producer.stop()


def _event(kind: Kind, number: int, film: str, viewer: str) -> tuple[str, str, str, dict[str, Any]]:
    """Topic, key, type and data of a write, its number in it."""
    if kind == "view":
        view_id = f"view-{number}"
        return "views", view_id, "video.viewed", {"view_id": view_id, "video_id": film}
    if kind == "position":
        data = {"viewer_id": viewer, "video_id": film, "position_seconds": float(number), "session_id": "tv"}
        return "positions", viewer, "position.updated", data
    announced = f"announced-{number}"
    metadata = {
        "content_type": "movie",
        "title": f"Film {number}",
        "filename": "film.mp4",
        "object_key": "videos/source",
    }
    return "videos", announced, "upload.initiated", {"video_id": announced, **metadata}


class ThroughGateway(Producer):
    """A page: `POST` a view, `PUT` a position."""

    def __init__(self, name: str, number: int, history: History, seed: int, session: aiohttp.ClientSession) -> None:
        super().__init__(name, number, history, seed)
        self._session = session

    async def write(self, kind: Kind, number: int, occurred_at: datetime, film: str, viewer: int) -> Any:
        body: dict[str, Any] = {"occurred_at": occurred_at.isoformat(), "session_id": "tv"}
        if kind == "view":
            method, path = "POST", f"/api/videos/{film}/views"
            body |= {"view_id": f"view-{number}"}
        else:
            method, path = "PUT", f"/api/videos/{film}/position"
            body |= {"position_seconds": float(number)}
        headers = {"X-Viewer-Id": f"{self.name}-viewer-{viewer}"}
        try:
            async with self._session.request(method, path, json=body, headers=headers) as answer:
                if answer.status == 202:
                    event = (await answer.json())["event"]
                    return [event["topic"], event["partition"], event["offset"]]
                if answer.status != 503:
                    raise Refused(f"{method} {path}: {answer.status} {(await answer.text())[:300]}")
                if "Retry-After" not in answer.headers:
                    raise Refused(f"{method} {path}: a 503 without Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        return None


class Readers:
    """One of each kind of read, again and again; what each showed is written down."""

    def __init__(self, history: History, session: aiohttp.ClientSession) -> None:
        self._history = history
        self._session = session
        self._asks: dict[Kind, Callable[[], Awaitable[dict[str, Any]]]] = {
            "top": self._top,
            "stats": lambda: self._ask("/api/analytics/videos/film-0/stats"),
            "resume": lambda: self._ask("/api/videos/film-0/position", viewer="gateway-1-viewer-0"),
            "search": lambda: self._ask("/api/videos/search?query=film&limit=1"),
        }

    async def run(self, stop: asyncio.Event) -> None:
        await asyncio.gather(*(self._read(kind, stop) for kind in READS))

    async def _read(self, kind: Kind, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                shown = await self._asks[kind]()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._history.note("reader", "unread", kind, why=str(error) or type(error).__name__)
            else:
                self._history.note("reader", "read", kind, **shown)
            await asyncio.sleep(PAUSE_SECONDS * 3)

    async def _top(self) -> dict[str, Any]:
        body = await self._ask("/api/analytics/top?k=1000&timeframe=all_time")
        return {"source": body["source"], "total": sum(item["views"] for item in body["items"])}

    async def _ask(self, path: str, *, viewer: str = "reader") -> dict[str, Any]:
        async with self._session.get(path, headers={"X-Viewer-Id": viewer}, raise_for_status=True) as answer:
            body: dict[str, Any] = await answer.json()
        return body if "items" in body and "timeframe" in body else {"source": body.get("source")}


def open_session(url: str) -> aiohttp.ClientSession:
    """A connection for each request: one that a killed process left half open would be no fault of the next."""
    return aiohttp.ClientSession(
        url, timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS * 2), connector=aiohttp.TCPConnector(force_close=True)
    )


async def announce_films(settings: Settings) -> None:
    """The films that are watched: the gateway takes a view only of one that it knows."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all") as producer:
        for film in FILMS:
            for event_type, data in (
                (
                    "upload.initiated",
                    {"content_type": "movie", "title": film, "filename": "film.mp4", "object_key": "videos/s"},
                ),
                ("video.uploaded", {"object_key": "videos/s", "size": 8}),
            ):
                await producer.send_and_wait(
                    settings.named("videos"),
                    orjson.dumps({"video_id": film, "occurred_at": datetime.now(UTC), **data}),
                    film.encode(),
                    headers=[
                        ("ce_specversion", b"1.0"),
                        ("ce_id", uuid.uuid4().hex.encode()),
                        ("ce_source", b"/chaos"),
                        ("ce_type", f"{NAMESPACE}.{event_type}.v1".encode()),
                        ("content-type", b"application/json"),
                    ],
                )
