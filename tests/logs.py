"""Partitions of the log in memory: one as the seen ids are refilled from, and a whole log of everything that may lie in one."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import orjson

from agents.handover import Partition
from schemas.envelope import STRUCTURED, Message, encode
from schemas.events import (
    Event,
    PositionUpdated,
    RenditionPublished,
    TranscodeFailed,
    TranscodeProgressed,
    UploadAborted,
    UploadInitiated,
    Variant,
    VideoDeleted,
    VideoTranscoded,
    VideoUploaded,
    VideoViewed,
    ViewerForgotten,
    ViewRetried,
)
from schemas.log import Place
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.given import EVENING
from tests.records import Kept, kept

SPAN = timedelta(days=3)  # from the log's first record to its last
FIRST = EVENING - SPAN
AS_OF = EVENING + timedelta(minutes=30)  # when boards that were folded from it are compared
FILMS = [f"film-{n}" for n in range(8)]
VIEWERS = [f"viewer-{n}" for n in range(6)]
AGES = (
    timedelta(0),
    timedelta(minutes=1),
    timedelta(hours=2),
    timedelta(days=3),
    timedelta(days=40),
    timedelta(days=500),
)


class PartitionInMemory:
    """Stands in for `LogReader`; `opened` counts how often the log was asked, `handed_out` the records."""

    def __init__(self, partition: Partition, records: Sequence[Kept]) -> None:
        self.partition = partition
        self.records = records
        self.opened = 0
        self.handed_out = 0

    @asynccontextmanager
    async def open(self, partition: Partition) -> AsyncIterator["PartitionInMemory"]:
        self.opened += 1
        yield self

    async def time_at(self, offset: int) -> int | None:
        return next((record.timestamp for record in self.records if record.offset >= offset), None)

    async def offset_at(self, time_ms: int) -> int:
        found = next((record.offset for record in self.records if record.timestamp >= time_ms), None)
        return await self.end() if found is None else found

    async def end(self) -> int:
        return self.records[-1].offset + 1 if self.records else 0

    async def read(self, from_offset: int, to_offset: int) -> AsyncIterator[list[Kept]]:
        for record in self.records:
            if from_offset <= record.offset < to_offset:
                self.handed_out += 1
                yield [record]


def log_of_everything(seed: int, records: int, *, until: datetime = EVENING) -> dict[Partition, PartitionInMemory]:
    """Events of every type, in both modes, late, again and from the future; poison of every kind; gaps where transactions were aborted."""
    return _Writer(random.Random(seed), until).written(records)


class _Writer:
    def __init__(self, chance: random.Random, until: datetime) -> None:
        self._chance = chance
        self._first = until - SPAN
        self._numbers = count()
        self._now = self._first
        self._views: list[str] = []
        self._seen: list[tuple[str, Place, datetime]] = []
        self._log: dict[Partition, list[Kept]] = {
            Partition(topic, number): []
            for topic, spec in streams().topics.items()
            for number in range(spec.partitions)
        }
        self._next: dict[Partition, int] = dict.fromkeys(self._log, 0)

    def written(self, records: int) -> dict[Partition, PartitionInMemory]:
        for number in range(records):
            # Ever closer together: a tenth of them within the last two hours.
            self._now = self._first + SPAN * (number / records) ** 0.3
            topic = self._chance.choices(("views", "positions", "videos", "viewers"), (50, 20, 30, 1))[0]
            happening: dict[str, Callable[[], Event]] = {
                "views": self._view if not self._seen or self._chance.random() < 0.95 else self._retry,
                "positions": self._position,
                "videos": self._film,
                "viewers": self._forgetting,
            }
            event = happening[topic]()
            self._append(encode(event, event_id=f"event-{next(self._numbers)}", source="/tests"))
        return {partition: PartitionInMemory(partition, found) for partition, found in self._log.items()}

    def _append(self, message: Message) -> None:
        partition = _home(message.topic, message.key)
        if self._chance.random() < 0.1:
            # A copier tells when its record was first appended; who lies may name any time.
            recorded = self._chance.choice(
                [self._now - timedelta(days=2), EVENING.replace(year=2099), EVENING.replace(year=1971)]
            )
            message.headers.append(("ce_recordedtime", (recorded + self._age()).isoformat().encode()))
        if self._chance.random() < 0.1:
            partition, message = self._spoilt(partition, message)
        elif self._chance.random() < 0.2:
            message = _structured(message)
        if self._chance.random() < 0.05:
            self._next[partition] += self._chance.randint(1, 4)  # an aborted transaction, and markers
        record = kept(
            message,
            partition=partition.number,
            offset=self._next[partition],
            timestamp=round(self._now.timestamp() * 1_000),
        )
        self._log[partition].append(record)
        if partition.topic == "views":
            self._seen.append((message.key.decode(), Place(*partition, record.offset), self._now))
        self._next[partition] += 1

    def _spoilt(self, home: Partition, message: Message) -> tuple[Partition, Message]:
        spoil: Callable[[], tuple[Partition, Message]] = self._chance.choice(
            [
                lambda: (home, message._replace(value=None)),  # type: ignore[arg-type]
                lambda: (home, message._replace(value=b"no json")),
                lambda: (home, message._replace(value=b"x" * 900_000)),
                lambda: (home, message._replace(value=b"{}")),
                lambda: (home, message._replace(headers=[])),
                lambda: (home, _with_type(message, b"entertainmenttime.video.praised.v1")),
                lambda: (home, message._replace(key=b"another")),
                lambda: (home, _with(message, occurred_at="9999-12-31T23:59:59Z")),
                lambda: (home, _with(message, occurred_at="1969-12-31T23:59:59Z")),
                lambda: (_beside(home), message),
                lambda: (_home("positions" if home.topic != "positions" else "videos", message.key), message),
            ]
        )
        return spoil()

    def _view(self) -> VideoViewed:
        again = self._views and self._chance.random() < 0.25
        view_id = self._chance.choice(self._views[-60:]) if again else f"view-{next(self._numbers)}"
        self._views.append(view_id)
        ahead = timedelta(minutes=5) if self._chance.random() < 0.05 else -self._age()
        return VideoViewed(
            view_id=view_id,
            video_id=self._film_id(),
            occurred_at=self._now + ahead,
            viewer_id=self._chance.choice([None, *VIEWERS]),
            watched_seconds=self._chance.choice([None, 0.5, 40.0]),
            session_id=self._chance.choice([None, "tv", "phone"]),
        )

    def _retry(self) -> ViewRetried:
        """Of a view that perhaps nobody has parked, or of what is none; what decision it was is all the same."""
        view_id, place, at = self._chance.choice(self._seen[-60:])
        named = self._chance.sample(["views", "statistics", "leaderboard"], self._chance.randint(1, 3))
        return ViewRetried(
            view_id=view_id, record=place.id, recorded_at=at, decision=0, projections=named, occurred_at=self._now
        )

    def _position(self) -> PositionUpdated:
        return PositionUpdated(
            viewer_id=self._chance.choice(VIEWERS),
            video_id=self._film_id(),
            position_seconds=float(self._chance.randint(0, 6_000)),
            occurred_at=self._now - self._age(),
            duration_seconds=self._chance.choice([None, 6_000.0]),
            session_id=self._chance.choice([None, "tv", "phone"]),
            state=self._chance.choice([None, "playing", "paused", "stopped"]),
        )

    def _forgetting(self) -> ViewerForgotten:
        """Of those who go on watching: another service may not have heard of it yet."""
        return ViewerForgotten(viewer_id=self._chance.choice(VIEWERS[:2]), occurred_at=self._now)

    def _film(self) -> Event:
        at: dict[str, Any] = {"video_id": self._film_id(), "occurred_at": self._now}
        claim = self._chance.randint(1, 3)
        rung: dict[str, Any] = {"quality": "240p", "width": 426, "height": 240, "bandwidth": 400_000}
        prefix = f"videos/{at['video_id']}/hls/{claim}-a"
        kind = self._chance.choice(
            [
                lambda: UploadInitiated(**at, **self._metadata(), filename="film.mp4", object_key="videos/source/1"),
                lambda: VideoUploaded(**at, object_key="videos/source/1", size=self._chance.randint(1, 9_000)),
                lambda: TranscodeProgressed(**at, claim=claim, progress=self._chance.random()),
                lambda: RenditionPublished(**at, **rung, claim=claim, prefix=prefix),
                lambda: VideoTranscoded(
                    **at,
                    claim=claim,
                    prefix=prefix,
                    duration_seconds=120.0,
                    width=426,
                    height=240,
                    variants=[Variant(**rung)],
                    passport={"checked": [claim, None, {"wide": True}]},
                ),
                lambda: TranscodeFailed(**at, claim=claim, reason="This file is not a video."),
                lambda: VideoDeleted(**at) if self._chance.random() < 0.2 else UploadAborted(**at, reason="expired"),
            ]
        )
        return kind()

    def _metadata(self) -> dict[str, Any]:
        title = self._chance.choice(["Heat", "Łódź o świcie", "Œuvre", "Straße"])
        return {"content_type": "movie", "title": title, "genre": self._chance.choice([None, "Crime"])}

    def _film_id(self) -> str:
        return self._chance.choice(FILMS)

    def _age(self) -> timedelta:
        return self._chance.choice(AGES) * self._chance.uniform(0.5, 1.5)


def _home(topic: str, key: bytes) -> Partition:
    return Partition(topic, partition_of(key, streams().topics[topic].partitions))


def _beside(home: Partition) -> Partition:
    return home._replace(number=(home.number + 1) % streams().topics[home.topic].partitions)


def _with(message: Message, **fields: Any) -> Message:
    return message._replace(value=orjson.dumps(orjson.loads(message.value) | fields))


def _with_type(message: Message, event_type: bytes) -> Message:
    return message._replace(headers=[(n, event_type if n == "ce_type" else v) for n, v in message.headers])


def _structured(message: Message) -> Message:
    attributes = {n.removeprefix("ce_"): v.decode() for n, v in message.headers if n.startswith("ce_")}
    return message._replace(
        value=orjson.dumps(attributes | {"data": orjson.loads(message.value)}), headers=[("content-type", STRUCTURED)]
    )
