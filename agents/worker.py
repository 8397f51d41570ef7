"""The Faust app, and an agent for each projection: the wiring.

faust -A agents --loop uvloop worker --loglevel info
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import faust
import structlog
from elasticsearch import AsyncElasticsearch
from faust.channels import Channel
from mode import Service
from mode.utils.queues import FlowControlEvent, ThrowableQueue
from redis.asyncio import Redis

from agents.folding import Folding
from agents.handover import Batch
from agents.log_reader import log_of
from agents.parking import Parking
from agents.reader import Reader, back_off_seconds
from agents.seen import SeenIdsOfWorker
from agents.topics import answers
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.settings import Settings, settings
from compose.telemetry import start_logging
from projections.all import PROJECTIONS
from projections.projection import Projection
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.memory import MemorySink
from projections.sinks.postgres import PostgresSink
from projections.sinks.redis import RedisSink
from projections.sinks.sink import Sink, StoreUnavailable
from schemas.streams import Streams, streams

TICK_SECONDS = 1.0
POSTGRES_CONNECTIONS = 16

logger = structlog.get_logger(__name__)


class App(faust.App):
    """Waits for a broker before Faust starts, which would end without one."""

    async def on_first_start(self) -> None:
        start_logging(settings(), "worker")
        for name in ("faust", "mode"):  # each part that starts and stops would have its line
            logging.getLogger(name).setLevel(logging.WARNING)
        attempt = 0
        while not await answers(settings().kafka_bootstrap):
            attempt += 1
            if attempt == 1:
                logger.warning("waiting for Kafka", bootstrap=settings().kafka_bootstrap)
            await asyncio.sleep(back_off_seconds(attempt))
        await super().on_first_start()


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
    )


class Batches(Channel[Batch]):
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
readers: dict[str, Reader] = {}


@app.agent(control)
async def hear_control(messages: Any) -> None:
    """A Faust app without an agent on a topic crashes in its conductor, so there is one; nothing is said on it yet."""
    async for _ in messages:
        logger.info("heard on the control topic")


def agent_for(name: str, concurrency: int) -> None:
    """An agent that takes the batches of one projection off its channel. One that raises is started again by Faust."""

    async def fold(batches: Any) -> None:
        async for batch in batches:
            await readers[name].process(batch)

    fold.__qualname__ = fold.__name__ = f"fold_{name}"
    app.agent(channels[name], concurrency=concurrency, name=f"agents.fold_{name}")(fold)


for _name, _spec in streams().agents.items():
    agent_for(_name, _spec.concurrency)


@app.service
class Reading(Service):
    """The readers of every projection, from the worker's start to its end."""

    async def on_start(self) -> None:
        self._open = AsyncExitStack()
        pool = await self._open.enter_async_context(open_postgres(settings(), connections=POSTGRES_CONNECTIONS))
        redis = await self._open.enter_async_context(open_redis(settings()))
        elasticsearch = await self._open.enter_async_context(open_elasticsearch(settings()))
        self._sinks = sinks(settings(), streams(), pool, redis, elasticsearch)
        seen = seen_ids(settings(), streams())
        for name, sink in self._sinks.items():
            readers[name] = new_reader(PROJECTIONS[name], sink, pool, seen, channels[name])
        self._reading = [asyncio.create_task(reader.run()) for reader in readers.values()]
        for task in self._reading:
            task.add_done_callback(self._ended)

    async def on_stop(self) -> None:
        for reader in readers.values():
            reader.stop()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await self._open.aclose()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        # A reader ends only when it is told to; an error is a bug, and the worker dies with it.
        if not task.cancelled() and (error := task.exception()):
            self.loop.call_soon(lambda: asyncio.ensure_future(self.crash(error)))

    @Service.task
    async def tick(self) -> None:
        """Lets time pass in the sinks, once a second."""
        while not self.should_stop:
            for name, sink in self._sinks.items():
                try:
                    await sink.tick(datetime.now(UTC))
                except StoreUnavailable as unavailable:
                    logger.debug("no tick", projection=name, why=str(unavailable))
            await self.sleep(TICK_SECONDS)


def new_reader(projection: Projection, sink: Sink, pool: Any, seen: SeenIdsOfWorker, channel: Any) -> Reader:
    partitions = {name: topic.partitions for name, topic in streams().topics.items()}
    folding = Folding(projection, sink, Parking(pool, projection), seen, partitions)
    counts = projection.counts_once

    async def deliver(batch: Batch) -> None:
        await channel.put(batch)

    return Reader(
        settings(),
        projection,
        sink,
        partitions,
        fold=folding.fold,
        deliver=deliver,
        on_hold=seen.hold if counts else lambda name, partition: None,
        on_release=seen.release if counts else lambda name, partition: None,
    )


def sinks(
    settings: Settings, map_of_system: Streams, pool: Any, redis: Redis, elasticsearch: AsyncElasticsearch
) -> dict[str, Sink]:
    """Each projection's sink, as `streams.yaml` has it."""
    found: dict[str, Sink] = {}
    for name, spec in map_of_system.projections.items():
        projection = PROJECTIONS[name]
        match spec.sink:
            case "postgres":
                found[name] = PostgresSink(pool, projection)
            case "redis":
                found[name] = RedisSink(redis, projection, settings.prefix, shards=spec.shards)
            case "elasticsearch":
                found[name] = ElasticsearchSink(elasticsearch, projection, settings.prefix)
            case "memory":
                found[name] = MemorySink(projection)
    return found


def seen_ids(settings: Settings, map_of_system: Streams) -> SeenIdsOfWorker:
    once_within = {name: topic.once_within for name, topic in map_of_system.topics.items() if topic.once_within}
    return SeenIdsOfWorker(
        once_within, {name: topic.partitions for name, topic in map_of_system.topics.items()}, log_of(settings)
    )
