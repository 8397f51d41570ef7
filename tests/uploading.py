"""A gateway in the test's own loop on real servers, what it appended, and films as the worker would make them known."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from aiokafka import AIOKafkaConsumer, TopicPartition

from compose.connections import open_postgres
from compose.provisioning import provision_bucket, provision_tables, provision_topics
from compose.settings import Settings
from compose.storage import Storage
from gateway.app import build_app
from gateway.keys import LOG, POSTGRES, STORAGE
from projections.catalogue import catalogue
from projections.sinks.postgres import PostgresSink
from projections.sinks.sink import LogIdentity
from schemas.decoded import Decoded
from schemas.envelope import decode
from schemas.events import Event
from schemas.log import Place, Recorded
from schemas.streams import streams


async def provision_gateway(settings: Settings) -> None:
    """What the gateway needs to take films and to give them out."""
    await provision_topics(settings, streams().topics)
    await provision_tables(settings)
    await provision_bucket(settings)
    async with open_postgres(settings) as pool:
        await PostgresSink(pool, catalogue).prepare()


class Gateway(NamedTuple):
    """`http` speaks to it; its paths are the gateway's."""

    http: TestClient
    settings: Settings

    @property
    def storage(self) -> Storage:
        return self.http.app[STORAGE]

    def break_log(self) -> None:
        """From now on nobody answers at the brokers' address."""
        log = self.http.app[LOG]
        log._settings = self.settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:9"})
        log._producer = None

    def mend_log(self) -> None:
        log = self.http.app[LOG]
        log._settings, log._failures = self.settings, 0

    async def keys(self, video_id: str = "") -> list[str]:
        return [found.key for found in await self.storage.list(f"videos/{video_id}")]

    async def until_nothing_is_begun(self) -> None:
        """No upload in parts is left in the store."""
        deadline = asyncio.get_running_loop().time() + 20
        while (await self.storage._minio._list_multipart_uploads(self.storage.bucket, prefix="videos/")).uploads:
            assert asyncio.get_running_loop().time() < deadline, "an upload that was given up is still there"
            await asyncio.sleep(0.05)

    async def events(self, topic: str = "videos") -> list[Decoded]:
        """All that lies on `topic`, in order."""
        name = self.settings.named(topic)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(name, number) for number in range(streams().topics[topic].partitions)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            records = []
            while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
        finally:
            await consumer.stop()
        return [
            decode(record, topic) for record in sorted(records, key=lambda record: (record.partition, record.offset))
        ]

    async def events_of(self, video_id: str) -> list[Decoded]:
        return [decoded for decoded in await self.events() if decoded.event.key == video_id]

    async def know(self, *events: Event) -> None:
        """Fold `events` into the catalogue, as the worker does."""
        sink = PostgresSink(self.http.app[POSTGRES], catalogue)
        place = (await sink.checkpoint("videos", 0, LogIdentity("test", "test", 1))).place
        moment = int(datetime.now(UTC).timestamp() * 1_000)
        decoded = [
            Decoded(event, Recorded(Place("videos", 0, place.offset + number), moment, f"e{number}"))
            for number, event in enumerate(events)
        ]
        await sink.apply(list(catalogue.fold(decoded)), expected=place, next_offset=place.offset + len(events))


@asynccontextmanager
async def gateway_on(settings: Settings) -> AsyncIterator[Gateway]:
    async with TestClient(TestServer(build_app(settings))) as http:
        yield Gateway(http, settings)


def form(
    fields: Iterable[tuple[str, str]], film: bytes | None, *, filename: str = "clip.mp4", first: bool = False
) -> FormData:
    """The upload's form; the film comes last, or `first`."""
    data = FormData(default_to_multipart=True)
    if film is not None and first:
        data.add_field("file", film, filename=filename, content_type="video/mp4")
    for name, value in fields:
        data.add_field(name, value)
    if film is not None and not first:
        data.add_field("file", film, filename=filename, content_type="video/mp4")
    return data
