"""From the POST of a view to a top list that holds it, at a thousand views a second; against a record that is produced and fetched."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.connections import connected
from benchmarks.films import announce
from compose.ending import end
from compose.provisioning import provision_topics
from compose.settings import Settings
from schemas.streams import streams
from tests.working import until

A_SECOND = 1_000
SECONDS = 10
FOLLOWED = 50  # one view in so many is followed until a list holds it
FILMS = 10
PAIRS = 3
CONNECTIONS = 200
SETTLED_SECONDS = 30.0


class Times(NamedTuple):
    """Seconds, each from the beginning of a write to its being seen, and how many writes a second there were in all."""

    seconds: list[float]
    per_second: float

    def at(self, share: float) -> float:
        """The quantile in milliseconds."""
        return statistics.quantiles(self.seconds, n=1_000)[round(share * 1_000) - 1] * 1_000


async def compare_freshness(settings: Settings) -> str:
    """A sentence with the medians of three pairs and our p99; `settings` are those of a running gateway and worker.

    A POST and a GET by themselves, in the same run, are the least that a view can take; round trips beside them tell what the others,
    who share the processors, do to a bare one.
    """
    await announce(settings, [f"film-{number}" for number in range(FILMS)])
    runs, alone = [], []
    await _posts(settings)  # the first second of a process's life is another matter
    for _ in range(PAIRS):
        runs.append(await _posts(settings))
        alone.append(await _alone(settings))
    p50, asked, beside, base = (
        statistics.median(times.at(0.5) for times in measured)
        for measured in (*list(zip(*runs, strict=True))[:3], alone)
    )
    p99 = statistics.median(run.visible.at(0.99) for run in runs)
    rate = statistics.median(run.visible.per_second for run in runs)
    wrong = [missed for run in runs for missed in run.wrong]
    verdict = f"{len(wrong)} lists lacked a view, as of {wrong[0]}" if wrong else "right"
    return (
        f"from a POST to a top list that holds the view, at {rate:,.0f} views/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms; a bare record "
        f"produced and fetched at the same rate: p50 {base:.2f} ms ({p50 / base:.1f} times as long), "
        f"{beside:.2f} ms while views are posted ({p50 / beside:.1f} times); a POST and a GET that wait for "
        f"nothing: p50 {asked:.1f} ms ({asked / base:.1f} times); answers {verdict}"
    )


async def _at_a_rate(write: Callable[[int], Coroutine[Any, Any, None]]) -> float:
    """Begin writes at their moments, whether the earlier ones have ended or not; returns how many a second there were."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(A_SECOND * SECONDS):
            await asyncio.sleep(max(0.0, began + number / A_SECOND - time.monotonic()))
            group.create_task(write(number))
    return A_SECOND * SECONDS / (time.monotonic() - began)


class Posts(NamedTuple):
    """What was measured while views were posted."""

    visible: Times
    by_themselves: Times  # a POST and a GET that wait for nothing
    bare: Times  # round trips beside them
    wrong: list[str]


async def _posts(settings: Settings) -> Posts:
    acknowledged: Counter[str] = Counter()
    followed: Counter[str] = Counter()
    seconds: list[float] = []
    by_themselves: list[float] = []
    wrong: list[str] = []
    top = f"/api/analytics/top?timeframe=all_time&k={FILMS}"
    url = settings.gateway_url
    async with connected(url.host or "", url.port or 80, CONNECTIONS) as http, bare_round_trips(settings) as trips:

        async def seen(after: str = "") -> dict[str, int]:
            answer = await http.get(top + after)
            return {item["video_id"]: item["views"] for item in orjson.loads(answer.body)["items"]}

        before = await seen()

        async def write(number: int) -> None:
            film = f"film-{number // FOLLOWED % FILMS}"
            # What was seen once stays, and this view is one more.
            at_least = before.get(film, 0) + followed[film] + 1
            began = time.monotonic()
            answer = await http.post(f"/api/videos/{film}/views", b"{}")
            posted = time.monotonic()
            acknowledged[film] += 1
            if number % FOLLOWED == 0:
                found = await seen(f"&after={answer.header('X-Event-Position')}")
                seconds.append(time.monotonic() - began)
                followed[film] += 1
                if found.get(film, 0) < at_least:
                    wrong.append(film)
                again = time.monotonic()
                await seen()
                by_themselves.append(posted - began + time.monotonic() - again)
            elif number % FOLLOWED == FOLLOWED // 2:
                await trips.begin(number)

        per_second = await _at_a_rate(write)
        expected = {film: before.get(film, 0) + by for film, by in acknowledged.items()}
        after: dict[str, int] = {}

        async def is_all_there() -> bool:
            nonlocal after
            after = await seen()
            return sum(after.values()) >= sum(expected.values())

        await until(is_all_there, seconds=SETTLED_SECONDS)
        wrong += [film for film, by in expected.items() if after.get(film, 0) != by]
    return Posts(*(Times(each, per_second) for each in (seconds, by_themselves, trips.seconds)), wrong)


class RoundTrips:
    """Bare ones: a record is produced, and handed out by a consumer that waits for whatever comes."""

    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, topic: str) -> None:
        self.seconds: list[float] = []
        self._producer = producer
        self._consumer = consumer
        self._topic = topic
        self._began: dict[bytes, float] = {}

    async def begin(self, number: int) -> None:
        key = b"%d" % number
        self._began[key] = time.monotonic()
        await self._producer.send_and_wait(self._topic, b'{"view_id":"01990000-0000-7000-8000-000000000000"}', key)

    async def are_all_back(self) -> bool:
        return len(self.seconds) >= len(self._began)

    async def fetch(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=100)).values():
                now = time.monotonic()
                self.seconds.extend(now - self._began[record.key] for record in records if record.key in self._began)


@asynccontextmanager
async def bare_round_trips(settings: Settings) -> AsyncIterator[RoundTrips]:
    """On a topic of their own."""
    topic = settings.named("round-trips")
    await provision_topics(settings, {"round-trips": streams().topics["views"]})
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        await producer.send_and_wait(topic, b"first", b"first")
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=settings.kafka_bootstrap, fetch_max_wait_ms=20)
        await consumer.start()
        await consumer.seek_to_end()
        trips = RoundTrips(producer, consumer, topic)
        fetching = asyncio.create_task(trips.fetch())
        try:
            yield trips
            await until(trips.are_all_back, seconds=SETTLED_SECONDS)
        finally:
            await end(fetching)
            await consumer.stop()


async def _alone(settings: Settings) -> Times:
    async with bare_round_trips(settings) as trips:
        per_second = await _at_a_rate(trips.begin)
    return Times(trips.seconds, per_second)
