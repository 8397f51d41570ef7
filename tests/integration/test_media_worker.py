"""The media worker on real servers: films go in, playlists and events come out, whoever dies on the way."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import orjson
import pytest
from aiokafka import AIOKafkaConsumer
from pydantic import HttpUrl, SecretStr

from agents.media.leases import Job, Leases, Work
from agents.media.sandbox import open_sandbox
from agents.media.transcoder import MOST_ATTEMPTS, Transcoder
from agents.media.worker import Tidying, Worker
from compose.connections import open_postgres
from compose.local.probes import http_answers
from compose.log import EventLog, open_log
from compose.provisioning import provision_bucket, provision_tables, provision_topics
from compose.settings import Settings
from compose.storage import Storage, open_storage
from projections.queries.versions import Versions
from schemas.envelope import decode
from schemas.events import (
    RenditionPublished,
    TranscodeFailed,
    TranscodeProgressed,
    UploadAborted,
    VideoEvent,
    VideoTranscoded,
    VideoUploaded,
)
from schemas.streams import streams
from tests.catalogue import Rows, open_rows, source_of
from tests.films import film, see
from tests.servers import free_port

DEADLINE_SECONDS = 60.0
LEASE_SECONDS = 600.0
PROJECT = Path(__file__).parents[2]
T = TypeVar("T")


class Media(NamedTuple):
    """What a media worker works with, and what a test looks at."""

    settings: Settings
    pool: Any
    storage: Storage
    log: EventLog
    rows: Rows
    scratch: Path

    async def upload(self, video_id: str, path: Path) -> None:
        """The film is there to be worked on."""
        await self.storage.put_file(source_of(video_id), path)
        await self.rows.upload(video_id)

    async def events(self, video_id: str) -> list[VideoEvent]:
        """What the log says of a film, in its order."""
        consumer = AIOKafkaConsumer(
            self.settings.named("videos"),
            bootstrap_servers=self.settings.kafka_bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            records: list[Any] = []
            for partition, end in ends.items():
                while await consumer.position(partition) < end:
                    records += (await consumer.getmany(partition, timeout_ms=1_000)).get(partition, [])
        finally:
            await consumer.stop()
        decoded = [decode(record, "videos").event for record in records]
        return [event for event in decoded if isinstance(event, VideoEvent) and event.video_id == video_id]

    async def keys(self, video_id: str) -> list[str]:
        """The objects of a film."""
        return [found.key for found in await self.storage.list(f"videos/{video_id}/")]


@pytest.fixture
async def media(kafka: None, postgres: None, s3: None, settings: Settings, tmp_path: Path) -> AsyncIterator[Media]:
    await asyncio.gather(
        provision_topics(settings, streams().topics), provision_tables(settings), provision_bucket(settings)
    )
    async with open_postgres(settings) as pool, open_storage(settings) as storage, open_log(settings, "/test") as log:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        yield Media(settings, pool, storage, log, await open_rows(pool), scratch)


async def until(what: Callable[[], Awaitable[T]]) -> T:
    """The first true answer."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not (answer := await what()):
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.05)
    return answer


async def transcoder(media: Media) -> Transcoder:
    return Transcoder(
        media.storage,
        media.log,
        Leases(media.pool, Versions(), "here", LEASE_SECONDS),
        await open_sandbox(media.scratch),
        media.scratch,
        "veryfast",
    )


async def transcode(media: Media) -> Job:
    """One worker does the next job, to its end."""
    leases = Leases(media.pool, Versions(), "here", LEASE_SECONDS)
    job = await leases.claim(Work.TRANSCODE)
    assert job is not None
    await Worker(leases, LEASE_SECONDS).do(job, (await transcoder(media)).work_on)
    return job


@asynccontextmanager
async def process(media: Media, lease_seconds: float, *, port: int = 0) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m agents.media` as it runs in the stack."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agents.media",
        cwd=PROJECT,
        env={
            **os.environ,
            "ET_PREFIX": media.settings.prefix,
            "ET_MEDIA_LEASE_SECONDS": str(lease_seconds),
            "ET_MEDIA_METRICS_PORT": str(port),
            "TMPDIR": str(media.scratch),
        },
    )
    try:
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


async def lease_of(media: Media, video_id: str) -> Any:
    return await media.pool.fetchrow("select * from leases where video_id = $1 and work = 'transcode'", video_id)


async def test_a_film_is_announced_when_all_of_it_is_there(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=6, size="640x360"))
    await transcode(media)
    events = await media.events("film")
    transcoded = events[-1]
    assert isinstance(transcoded, VideoTranscoded)
    assert [type(event) for event in events[:-1]] == [
        *[TranscodeProgressed] * sum(isinstance(event, TranscodeProgressed) for event in events),
        *[RenditionPublished] * 2,
    ]
    assert [variant.quality for variant in transcoded.variants] == ["360p", "240p"]
    assert transcoded.duration_seconds == pytest.approx(6, abs=0.1)

    prefix, objects = transcoded.prefix, set(await media.keys("film"))
    assert {f"{prefix}/{name}" for name in (transcoded.thumbnail, transcoded.storyboard, "passport.json")} <= objects
    master = (await media.storage.read_bytes(f"{prefix}/master.m3u8")).decode()
    for playlist in re.findall(r"^[^#\n]+$", master, re.MULTILINE):
        folder = f"{prefix}/{playlist.rpartition('/')[0]}"
        text = (await media.storage.read_bytes(f"{prefix}/{playlist}")).decode()
        named = re.findall(r'^[^#\n]+$|(?<=URI=")[^"]+', text, re.MULTILINE)
        assert {f"{folder}/{name}" for name in named} <= objects


async def test_what_was_published_plays_as_a_player_reads_it(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=5))
    await transcode(media)
    transcoded = (await media.events("film"))[-1]
    assert isinstance(transcoded, VideoTranscoded)
    for key in await media.keys("film"):
        local = tmp_path / "player" / key.removeprefix(f"{transcoded.prefix}/")
        local.parent.mkdir(parents=True, exist_ok=True)
        await media.storage.get_to_file(key, local)
    seen = see(tmp_path / "player" / "240p" / "playlist.m3u8")
    assert (seen.frames, seen.audio_seconds) == (125, pytest.approx(5, abs=0.1))


async def test_every_name_of_an_attempt_is_its_own(media: Media, tmp_path: Path) -> None:
    """So that what a cache holds for ever is never another attempt's."""
    await media.upload("film", film(tmp_path / "film.mp4", seconds=1))
    await transcode(media)
    attempt = {key.split("/")[3] for key in await media.keys("film") if "/hls/" in key}
    assert len(attempt) == 1
    for key in await media.keys("film"):
        if key.endswith((".m4s", ".mp4", ".jpg", ".vtt")):
            assert attempt.copy().pop() in key.rpartition("/")[2]


async def test_the_passport_tells_what_was_found(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=1))
    await transcode(media)
    transcoded = (await media.events("film"))[-1]
    assert isinstance(transcoded, VideoTranscoded)
    stored = orjson.loads(await media.storage.read_bytes(f"{transcoded.prefix}/passport.json"))
    assert stored == transcoded.passport
    assert (stored["found"]["video_codec"], stored["made"]["frames"]) == ("h264", 25)


async def test_what_is_no_film_fails_in_words_and_leaves_nothing_but_itself(media: Media, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Casablanca is a film of 1942.\n" * 9)
    await media.upload("notes", tmp_path / "notes.txt")
    await transcode(media)
    failed = (await media.events("notes"))[-1]
    assert isinstance(failed, TranscodeFailed)
    assert failed.reason == "This file is not a video we can read: it looks like text."
    assert await media.keys("notes") == [source_of("notes")]


async def test_a_film_whose_bytes_are_gone_fails_in_words(media: Media) -> None:
    await media.rows.upload("lost")
    await transcode(media)
    failed = (await media.events("lost"))[-1]
    assert isinstance(failed, TranscodeFailed)
    assert "no longer in the store" in failed.reason


async def test_a_film_that_killed_its_workers_is_given_up_in_words(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=1))
    leases = Leases(media.pool, Versions(), "dying", LEASE_SECONDS)
    for _ in range(MOST_ATTEMPTS):
        assert await leases.claim(Work.TRANSCODE)
        await media.rows.expire_leases()
    await transcode(media)
    (failed,) = await media.events("film")
    assert isinstance(failed, TranscodeFailed)
    assert "begun 3 times" in failed.reason


async def test_a_killed_workers_film_is_finished_by_another(media: Media, tmp_path: Path) -> None:
    async with process(media, lease_seconds=2) as first:
        await media.upload("film", film(tmp_path / "film.mp4", seconds=10, size="640x360"))
        await until(lambda: lease_of(media, "film"))
        first.send_signal(signal.SIGKILL)
        await first.wait()
    async with process(media, lease_seconds=2):
        await until(lambda: media.pool.fetchval("select finished_at from leases where video_id = 'film'"))
    events = await media.events("film")
    assert [type(event) for event in events].count(VideoTranscoded) == 1
    assert isinstance(events[-1], VideoTranscoded)
    assert events[-1].claim == 2


async def test_a_worker_told_to_stop_gives_its_film_back_at_once(media: Media, tmp_path: Path) -> None:
    async with process(media, lease_seconds=LEASE_SECONDS) as worker:
        await media.upload("film", film(tmp_path / "film.mp4", seconds=10, size="640x360"))
        await until(lambda: lease_of(media, "film"))
        worker.terminate()
        assert await asyncio.wait_for(worker.wait(), DEADLINE_SECONDS) == 0
    job = await Leases(media.pool, Versions(), "next", LEASE_SECONDS).claim(Work.TRANSCODE)
    assert job is not None
    assert (job.claim, job.attempts) == (2, 1)
    assert await media.keys("film") == [source_of("film")]


class Gate:
    """A way to a server that can be shut: whoever is on it is cut off, and nobody else gets through."""

    def __init__(self, host: str, port: int) -> None:
        self._there = host, port
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()

    async def let_through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.close()
            return
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        self._writers |= {writer, there_writer}
        await asyncio.gather(self._pass_on(reader, there_writer), self._pass_on(there_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def shut(self) -> None:
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def open(self) -> None:
        self._open = True


@asynccontextmanager
async def gate_to(url: str) -> AsyncIterator[tuple[Gate, str]]:
    """A gate, and the same address through it."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    gate = Gate(parts.hostname, parts.port)
    server = await asyncio.start_server(gate.let_through, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield gate, url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{port}")
    finally:
        server.close()
        gate.shut()


async def work_with(media: Media, pool: Any, storage: Storage) -> None:
    """One worker does the next job, with a database and a store of its own way."""
    leases = Leases(pool, Versions(), "here", LEASE_SECONDS)
    sandbox = await open_sandbox(media.scratch)
    working = Transcoder(storage, media.log, leases, sandbox, media.scratch, "veryfast")
    job = await leases.claim(Work.TRANSCODE)
    assert job is not None
    await Worker(leases, LEASE_SECONDS).do(job, working.work_on)


def prefixes(media: Media) -> list[str]:
    """Where the films that are in work will lie."""
    return [f"videos/{path.name.replace('-', '/hls/', 1)}" for path in media.scratch.glob("film-*")]


async def is_being_made(media: Media) -> bool:
    """Whether the source was read and something is written."""
    return bool(list(media.scratch.glob("*/out/*.mp4")))


async def is_made(media: Media) -> bool:
    """Whether the pictures are taken, the last that is made."""
    return bool(list(media.scratch.glob("*/out/thumbnail.jpg")))


class Waiting:
    """A storage that takes no file before it may."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.may = asyncio.Event()

    async def put_file(self, *args: Any, **options: Any) -> Any:
        await self.may.wait()
        return await self._storage.put_file(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


async def test_a_database_that_is_away_costs_no_film_that_is_made(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=2))
    # What is made is soon published, and gone from the folder.
    storage = Waiting(media.storage)
    dsn = media.settings.postgres_dsn.get_secret_value()
    async with gate_to(dsn) as (gate, through):
        settings = media.settings.model_copy(update={"postgres_dsn": SecretStr(through)})
        async with open_postgres(settings) as pool:
            working = asyncio.create_task(work_with(media, pool, cast(Storage, storage)))
            await until(lambda: is_made(media))
            gate.shut()
            storage.may.set()
            await until(lambda: media.storage.head(f"{next(iter(prefixes(media)))}/master.m3u8"))
            gate.open()
            await asyncio.wait_for(working, DEADLINE_SECONDS)
    transcoded = (await media.events("film"))[-1]
    assert isinstance(transcoded, VideoTranscoded)
    assert transcoded.claim == 1


async def test_a_store_that_is_away_costs_no_film_that_is_made(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=2))
    async with gate_to(str(media.settings.s3_endpoint)) as (gate, through):
        settings = media.settings.model_copy(update={"s3_endpoint": HttpUrl(through)})
        async with open_storage(settings) as storage:
            working = asyncio.create_task(work_with(media, media.pool, storage))
            await until(lambda: is_being_made(media))
            gate.shut()
            await until(lambda: is_made(media))
            gate.open()
            await asyncio.wait_for(working, DEADLINE_SECONDS)
    transcoded = (await media.events("film"))[-1]
    assert isinstance(transcoded, VideoTranscoded)
    assert transcoded.claim == 1


async def test_two_workers_share_the_films(media: Media, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=2)
    first, second = free_port(), free_port()
    async with process(media, lease_seconds=30, port=first), process(media, lease_seconds=30, port=second):
        # Both: one that starts sooner, by as much as a busy machine takes for it, would have made them all.
        await until(lambda: http_answers(first, "/live"))
        await until(lambda: http_answers(second, "/live"))
        for number in range(4):
            await media.upload(f"film-{number}", path)
        await until(lambda: media.pool.fetchval("select count(*) = 4 from leases where finished_at is not null"))
    workers = await media.pool.fetch("select distinct worker from leases")
    assert len(workers) == 2
    for number in range(4):
        kinds = [type(event) for event in await media.events(f"film-{number}")]
        assert kinds.count(VideoTranscoded) == 1


async def test_a_film_deleted_while_it_is_made_is_let_go(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=10, size="640x360"))
    leases = Leases(media.pool, Versions(), "here", LEASE_SECONDS)
    job = await leases.claim(Work.TRANSCODE)
    assert job is not None
    await media.rows.delete("film")
    await Worker(leases, lease_seconds=0.3).do(job, (await transcoder(media)).work_on)
    assert {type(event) for event in await media.events("film")} <= {TranscodeProgressed}
    assert await media.keys("film") == [source_of("film")]
    assert not list(media.scratch.glob("film-*"))


async def test_the_objects_of_a_deleted_film_go(media: Media, tmp_path: Path) -> None:
    await media.upload("film", film(tmp_path / "film.mp4", seconds=1))
    await media.upload("other", tmp_path / "film.mp4")
    await transcode(media)
    await media.rows.delete("film")
    leases = Leases(media.pool, Versions(), "here", LEASE_SECONDS)
    job = await leases.claim(Work.DELETE)
    assert job is not None
    tidying = Tidying(media.storage, media.log, leases)
    await tidying.delete(job)
    await tidying.delete(job)
    assert (await media.keys("film"), await media.keys("other")) == ([], [source_of("other")])


@pytest.mark.parametrize(("is_there", "settled_as"), [(True, VideoUploaded), (False, UploadAborted)])
async def test_an_upload_that_expired_is_settled_by_what_is_there(
    media: Media, is_there: bool, settled_as: type[VideoEvent], tmp_path: Path
) -> None:
    if is_there:
        await media.storage.put_bytes(source_of("film"), b"all of it")
    leases = Leases(media.pool, Versions(), "here", LEASE_SECONDS)
    await Tidying(media.storage, media.log, leases).settle(Job(Work.SETTLE, "film", 1, 1, source_of("film"), 0))
    (event,) = await media.events("film")
    assert isinstance(event, settled_as)
