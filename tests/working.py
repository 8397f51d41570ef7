"""Worker processes on the servers of a run, what is produced for them, and what they made of it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from compose.connections import open_postgres, open_redis
from compose.local.stack import ROOT
from compose.provisioning import provision_tables, provision_topics
from compose.settings import Settings
from projections.queries.leaderboard import Leaderboard
from projections.queries.versions import Versions
from projections.sinks.postgres import reaching_postgres
from projections.sinks.sink import StoreUnavailable
from schemas.envelope import encode
from schemas.events import Event, VideoViewed
from schemas.streams import streams
from tests.servers import Servers

PATIENCE_SECONDS = 90.0
POLL_SECONDS = 0.05
STOP_SECONDS = 30.0


class Totals(NamedTuple):
    """The views of each film, as three projections in two stores count them."""

    raw: dict[str, int]
    hourly: dict[str, int]
    board: dict[str, int]


class Worker:
    """A worker process, and all that it said."""

    def __init__(self, settings: Settings, servers: Servers, log: Path, *, name: str = "", **environment: str) -> None:
        self._command = [sys.executable, "-m", "faust", "-A", "agents", "--loop", "uvloop", "worker", "--without-web"]
        self._environment = {**os.environ, **servers.endpoints(settings.prefix), "ET_WORKER_ID": name}
        self._environment |= environment
        self.log = log
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """As the kernel kills."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ends in order, within thirty seconds. Raises TimeoutExpired."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def working(
    settings: Settings, servers: Servers, folder: Path, *names: str, **environment: str
) -> Iterator[list[Worker]]:
    """A worker for each of `names`, killed at the end."""
    workers = [
        Worker(settings, servers, folder / f"worker-{i}.log", name=name, **environment)
        for i, name in enumerate(names or [""])
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()


class Command:
    """`faust -A agents …` as a process, with all that it says."""

    def __init__(self, settings: Settings, servers: Servers, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "agents", *words],
            cwd=ROOT,
            env={**os.environ, **servers.endpoints(settings.prefix), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def said(self) -> str:
        """Everything, once it has ended."""
        try:
            out, _ = await asyncio.to_thread(self.process.communicate, timeout=2 * PATIENCE_SECONDS)
        finally:
            self.process.kill()
        return out

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def command(settings: Settings, servers: Servers, *words: str) -> str:
    """What the command says. Raises AssertionError with it when it fails."""
    ordered = Command(settings, servers, *words)
    said = await ordered.said()
    assert ordered.process.returncode == 0, said
    return said


async def refused(settings: Settings, servers: Servers, *words: str) -> str:
    """What a command says that has to fail."""
    ordered = Command(settings, servers, *words)
    said = await ordered.said()
    assert ordered.process.returncode == 1, said
    assert "Traceback" not in said
    return said


async def provision_log(settings: Settings) -> None:
    """Topics and tables, which a worker expects to find."""
    await asyncio.gather(provision_topics(settings, streams().topics), provision_tables(settings))


def viewed(view_id: str, video_id: str, *, at: datetime | None = None) -> VideoViewed:
    return VideoViewed(view_id=view_id, video_id=video_id, occurred_at=at or datetime.now(UTC))


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, linger_ms=5) as producer:
        yield producer


async def produce(settings: Settings, events: Iterable[Event]) -> None:
    """Append each of `events`, acknowledged, as any other service would."""
    async with producing(settings) as producer:
        sent = []
        for event in events:
            message = encode(event, event_id=event.key, source="/tests")
            sent.append(
                await producer.send(settings.named(message.topic), message.value, message.key, headers=message.headers)
            )
        await asyncio.gather(*sent)


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[Callable[[Sequence[str]], Awaitable[Totals | None]]]:
    """Yields what tells the totals of some films just now, or None before there are any."""
    async with open_postgres(settings, connections=1) as pool, open_redis(settings) as redis:
        board = Leaderboard(redis, settings.prefix, Versions())

        async def totals(videos: Sequence[str]) -> Totals | None:
            try:
                with reaching_postgres():
                    raw = await pool.fetch("select video_id, count(*) from views_v2 group by 1")
                    hourly = await pool.fetch("select video_id, sum(views)::bigint from hourly_v1 group by 1")
                counted = {video: (await board.views(video)).all_time for video in videos}
            except StoreUnavailable:
                return None
            return Totals(dict(map(tuple, raw)), dict(map(tuple, hourly)), {v: n for v, n in counted.items() if n})

        yield totals


async def settled(settings: Settings, expected: Counter[str], *, seconds: float = PATIENCE_SECONDS) -> Totals:
    """The totals once they are as expected, or what they are when patience ends."""
    found: Totals | None = None
    async with counting(settings) as totals:

        async def are_there() -> bool:
            nonlocal found
            found = await totals(list(expected))
            return found == Totals(expected, expected, expected)

        with suppress(TimeoutError):
            await until(are_there, seconds=seconds)
    assert found is not None, "no worker made any table"
    return found


async def until(found: Callable[[], Awaitable[Any]], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first answer that is neither None nor False. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not (answer := await found()):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        return answer
