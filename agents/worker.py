"""The Faust app, and an agent for each projection: the wiring.

faust -A agents --loop uvloop worker --without-web
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import faust
import structlog
from faust.channels import Channel
from faust.cli.worker import worker as worker_command
from mode import Service
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from agents.aside import take_turns
from agents.decisions import DecisionsOfWorker, decisions_of
from agents.folding import Folding
from agents.handover import Batch
from agents.metrics import WATCHDOG_RESTARTS
from agents.parking import Parking
from agents.reader import Reader, back_off_seconds
from agents.registry import kept_up, left_alone, register_declared
from agents.seen import SeenIdsOfWorker, seen_ids
from agents.standing import Judged, Standing
from agents.status_page import status_page
from agents.stores import folded_as, open_stores
from agents.topics import answers
from agents.watchdog import Watchdog
from agents.watching import Watching
from agents.webhooks.delivering import deliver
from compose.connections import open_postgres
from compose.ending import end
from compose.garbage import collect_seldom
from compose.hearing import hear
from compose.settings import Settings, settings
from compose.telemetry import start_logging
from projections.projection import Projection
from projections.queries.versions import Version, Versions, read_versions
from projections.sinks.redis_keys import waits
from projections.sinks.sink import Sink, StoreUnavailable
from schemas.log import Place
from schemas.streams import streams

TICK_SECONDS = 1.0
END_SECONDS = 20.0  # for a reader that is told to end: what it waits for then is beyond our reach
STORE_SECONDS = 5.0  # a store that says nothing for as long is away
WEBHOOK_CONNECTIONS = 4  # each is held for a statement or two
POSTGRES_CONNECTIONS = 17  # one listens

logger = structlog.get_logger(__name__)


class App(faust.App):
    """Waits for a broker before Faust starts, which would end without one."""

    async def on_first_start(self) -> None:
        attempt = 0
        while not await answers(settings().kafka_bootstrap):
            attempt += 1
            if attempt == 1:
                logger.warning("waiting for Kafka", bootstrap=settings().kafka_bootstrap)
            await asyncio.sleep(back_off_seconds(attempt))
        collect_seldom()
        take_turns()
        await super().on_first_start()


class Worker(faust.Worker):
    """Says what it has to say in the log alone: Faust's banner, its spinner and its own set-up of logging would come between."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "quiet": True, "override_logging": False})
        self.spinner = None
        start_logging(settings(), "worker")
        for name in ("faust", "mode"):  # each part that starts and stops would have its line
            logging.getLogger(name).setLevel(logging.WARNING)


worker_command.on_worker_created = lambda command, worker: None  # type: ignore[method-assign, assignment]


def new_app(settings: Settings) -> faust.App:
    """Faust supervises and gives the commands; batches come from our own readers, so its one topic is for control alone."""
    brokers = [f"kafka://{broker.strip()}" for broker in settings.kafka_bootstrap.split(",")]
    return App(
        settings.named("agents"),
        broker=brokers,
        store="memory://",
        topic_partitions=1,
        topic_disable_leader=True,
        broker_commit_every=1,
        datadir=Path(gettempdir()) / settings.named("agents"),  # for tables, of which there are none
        # Faust starts nothing before its own group has met: without a name that outlives the process, a restart after a
        # kill would first wait out the dead member's session, a minute.
        consumer_group_instance_id=settings.worker_id or None,
        broker_session_timeout=6,
        broker_heartbeat_interval=2,
        logging_config=None,
        Worker=Worker,
    )


class Batches(Channel[tuple[Reader, Batch]]):
    """A channel that keeps what lies in it.

    Faust empties its own channels, and its streams skip their events, whenever its own group rebalances, which has nothing to do with
    our batches. One queue serves every agent that takes from it.
    """

    @property
    def queue(self) -> Any:
        if self._queue is None:
            self._queue = ThrowableQueue(flow_control=FlowControlEvent(initially_suspended=False))
        return self._queue

    def _clone_args(self) -> Mapping[str, Any]:
        return {**super()._clone_args(), "queue": self.queue}

    async def put(self, value: Any) -> None:
        await self.queue.put(value)


app = new_app(settings())
channels = {name: Batches(app) for name in streams().agents}
control = app.topic(settings().named("agents-control"), partitions=1, internal=True, value_serializer="raw")


@app.agent(control)
async def hear_control(messages: Any) -> None:
    """A Faust app without an agent on a topic crashes in its conductor, so there is one; nothing is said on it yet."""
    async for _ in messages:
        logger.info("heard on the control topic")


def agent_for(name: str, concurrency: int) -> None:
    """An agent that takes the batches of one projection, of any version, off its channel. One that raises is started again by Faust."""

    async def fold(batches: Any) -> None:
        async for reader, batch in batches:
            await reader.process(batch)

    fold.__qualname__ = fold.__name__ = f"fold_{name}"
    app.agent(channels[name], concurrency=concurrency, name=f"agents.fold_{name}")(fold)


for _name, _spec in streams().agents.items():
    agent_for(_name, _spec.concurrency)


class Held(NamedTuple):
    """A version that this worker folds."""

    version: Version
    reader: Reader
    sink: Sink
    running: "asyncio.Task[None]"
    may_fold: asyncio.Event  # not set while the version is held, to be compared


@app.service
class Reading(Service):
    """A reader for each version that this worker folds, begun and ended as the registry says."""

    async def on_start(self) -> None:
        self._open = AsyncExitStack()
        self._stores = await self._open.enter_async_context(open_stores(settings(), connections=POSTGRES_CONNECTIONS))
        self._seen = seen_ids(settings(), streams())
        self._decisions = decisions_of(settings(), streams())
        self._versions = Versions()
        self._held: dict[str, Held] = {}
        self._changing = asyncio.Lock()  # of what is held
        self._hearing = asyncio.create_task(hear(self._stores.redis, waits(settings().prefix), self._hurry))
        self._watchdog = Watchdog()
        self._watching = Watching(settings(), self._stores.pool, self._seen, self._standings, self._watchdog)
        await self._open.enter_async_context(
            status_page(settings().metrics_host, settings().worker_metrics_port, self._waits_for)
        )

    async def on_stop(self) -> None:
        await end(self._hearing)
        await self._end(list(self._held))
        await self._open.aclose()

    @Service.task
    async def adopt(self) -> None:
        """Fold what the registry has for us, now and whenever it changes."""
        await self._register()
        following = asyncio.create_task(self._versions.follow(self._stores.pool))
        try:
            while not self.should_stop:
                changed = self._versions.changed
                async with self._changing:
                    await self._adopt()
                await self.wait_first(changed.wait())
        finally:
            following.cancel()

    async def _register(self) -> None:
        """Without the registry a worker does not know what to fold: a version taken for the active one may be long dropped."""
        attempt = 0
        while not self.should_stop:
            try:
                await register_declared(self._stores.pool, streams())
                self._versions.tell(await read_versions(self._stores.pool))
                return
            except StoreUnavailable as unavailable:
                attempt += 1
                if attempt == 1:
                    logger.warning("waiting for the registry of versions", why=str(unavailable))
                await self.sleep(back_off_seconds(attempt))

    async def _adopt(self) -> None:
        wanted = {version.full_name: version for version in kept_up(self._versions, streams())}
        await self._end([name for name in self._held if name not in wanted])
        for name, version in wanted.items():
            if name not in self._held:
                self._held[name] = self._begin(version, asyncio.Event())
            if version.is_held:
                self._held[name].may_fold.clear()
            else:
                self._held[name].may_fold.set()
        for words in left_alone(self._versions, streams()):
            logger.warning("another release has to fold it", why=words)

    def _begin(self, version: Version, may_fold: asyncio.Event) -> Held:
        sink = self._stores.sink(version)
        reader = new_reader(
            folded_as(version),
            sink,
            self._stores.pool,
            self._seen,
            self._decisions,
            channels[version.projection],
            may_fold,
        )
        running = asyncio.create_task(reader.run())
        running.add_done_callback(self._ended)
        return Held(version, reader, sink, running, may_fold)

    async def _end(self, names: list[str]) -> None:
        ending = {name: self._held.pop(name) for name in names}
        for name, held in ending.items():
            logger.info("no longer reading", version=name)
            held.reader.stop()
            held.running.cancel()
        if ending:
            await asyncio.wait([held.running for held in ending.values()], timeout=END_SECONDS)

    @Service.task
    async def watch(self) -> None:
        """Where every partition stands, and the watchdog for those that stand still."""
        await self._watching.run(self._wake)

    def _hurry(self, told: str) -> None:
        """Somebody waits for a version to fold what lies at these places; what is not understood is of another release."""
        with contextlib.suppress(ValueError):
            name, *places = told.split()
            if held := self._held.get(name):
                held.reader.hurry([Place.of(place) for place in places])

    def _standings(self) -> list[Standing]:
        return [
            standing if held.may_fold.is_set() else standing._replace(reason="the comparison that holds it still")
            for held in self._held.values()
            for standing in held.reader.standings()
        ]

    def _waits_for(self) -> Iterable[str]:
        """In sentences, why this worker does not do its work."""
        if not self._held:
            yield "the registry of versions is not read yet"
        for name, held in self._held.items():
            if not held.reader.has_begun:
                yield f"{name} waits for its servers"
        yield from (one.why for one in self._watching.judged if one.why)

    async def _wake(self, silent: list[Judged]) -> None:
        """Start the readers again that stand still although their stores answer. Raises Stuck when that did not help before."""
        for name in dict.fromkeys(one.standing.full_name for one in silent):
            stuck = [one for one in silent if one.standing.full_name == name]
            async with self._changing:
                if (held := self._held.get(name)) and await self._store_answers(held, stuck):
                    logger.error(
                        "a reader is stuck and is started again",
                        projection=name,
                        why=[one.why for one in stuck],
                        tasks=held.reader.whereabouts(),
                    )
                    self._watchdog.restarted(name)
                    WATCHDOG_RESTARTS.labels(held.version.projection).inc()
                    await self._end([name])
                    self._held[name] = self._begin(held.version, held.may_fold)

    async def _store_answers(self, held: Held, stuck: list[Judged]) -> bool:
        checkpoints = self._stores.checkpoints(held.version)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await checkpoints.next_offsets(one.standing.partition for one in stuck)
        except (StoreUnavailable, TimeoutError):
            return False
        return True

    def _ended(self, task: "asyncio.Task[None]") -> None:
        # A reader ends only when it is told to; an error is a bug, and the worker dies with it.
        if not task.cancelled() and (error := task.exception()):
            self.loop.call_soon(lambda: asyncio.ensure_future(self.crash(error)))

    @Service.task
    async def tick(self) -> None:
        """Lets time pass in the sinks, once a second."""
        while not self.should_stop:
            for name, held in list(self._held.items()):
                try:
                    if held.may_fold.is_set():
                        await held.sink.tick(datetime.now(UTC))
                except StoreUnavailable as unavailable:
                    logger.debug("no tick", version=name, why=str(unavailable))
            await self.sleep(TICK_SECONDS)


@app.service
class Telling(Service):
    """Webhooks: a worker delivers to the subscriptions that no other delivers to."""

    async def on_start(self) -> None:
        self._open = AsyncExitStack()
        pool = await self._open.enter_async_context(open_postgres(settings(), connections=WEBHOOK_CONNECTIONS))
        name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._delivering = asyncio.create_task(deliver(settings(), pool, name))

    async def on_stop(self) -> None:
        self._delivering.cancel()
        await asyncio.wait([self._delivering], timeout=END_SECONDS)
        await self._open.aclose()


def new_reader(
    projection: Projection,
    sink: Sink,
    pool: Any,
    seen: SeenIdsOfWorker,
    decisions: DecisionsOfWorker,
    channel: Any,
    may_fold: asyncio.Event,
) -> Reader:
    partitions = {name: topic.partitions for name, topic in streams().topics.items()}
    folding = Folding(projection, sink, Parking(pool, projection), seen, partitions, decisions)
    counts = projection.counts_once

    async def fold(batch: Batch) -> None:
        await may_fold.wait()
        await folding.fold(batch)

    async def deliver(batch: Batch) -> None:
        await channel.put((reader, batch))

    reader = Reader(
        settings(),
        projection,
        sink,
        partitions,
        fold=fold,
        deliver=deliver,
        on_hold=seen.hold if counts else lambda name, partition: None,
        on_release=seen.release if counts else lambda name, partition: None,
    )
    return reader
