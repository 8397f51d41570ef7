"""From the POST of a view to a top list that holds it, at a thousand views a second; against a record that is produced and fetched."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.connections import connected
from benchmarks.films import announce
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

    A POST and a GET by themselves, in the same run, are the least that a view can take.
    """
    await announce(settings, [f"film-{number}" for number in range(FILMS)])
    ours, least, theirs, wrong = [], [], [], []
    await _posts(settings)  # the first second of a process's life is another matter
    for _ in range(PAIRS):
        times, by_themselves, missed = await _posts(settings)
        ours.append(times)
        least.append(by_themselves)
        wrong += missed
        theirs.append(await _round_trips(settings))
    p50, asked, base = (statistics.median(times.at(0.5) for times in runs) for runs in (ours, least, theirs))
    p99 = statistics.median(times.at(0.99) for times in ours)
    rate = statistics.median(times.per_second for times in ours)
    verdict = f"{len(wrong)} lists lacked a view, as of {wrong[0]}" if wrong else "right"
    return (
        f"from a POST to a top list that holds the view, at {rate:,.0f} views/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms; a bare record "
        f"produced and fetched at the same rate: p50 {base:.2f} ms ({p50 / base:.1f} times as long); a POST and a GET that wait for "
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


async def _posts(settings: Settings) -> tuple[Times, Times, list[str]]:
    acknowledged: Counter[str] = Counter()
    followed: Counter[str] = Counter()
    seconds: list[float] = []
    by_themselves: list[float] = []
    wrong: list[str] = []
    top = f"/api/analytics/top?timeframe=all_time&k={FILMS}"
    url = settings.gateway_url
    async with connected(url.host or "", url.port or 80, CONNECTIONS) as http:

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

        per_second = await _at_a_rate(write)
        expected = {film: before.get(film, 0) + by for film, by in acknowledged.items()}
        after: dict[str, int] = {}

        async def is_all_there() -> bool:
            nonlocal after
            after = await seen()
            return sum(after.values()) >= sum(expected.values())

        await until(is_all_there, seconds=SETTLED_SECONDS)
        wrong += [film for film, by in expected.items() if after.get(film, 0) != by]
    return Times(seconds, per_second), Times(by_themselves, per_second), wrong


async def _round_trips(settings: Settings) -> Times:
    topic = settings.named("round-trips")
    await provision_topics(settings, {"round-trips": streams().topics["views"]})
    began: dict[bytes, float] = {}
    seconds: list[float] = []
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        await producer.send_and_wait(topic, b"first", b"first")
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=settings.kafka_bootstrap, fetch_max_wait_ms=20)
        await consumer.start()
        await consumer.seek_to_end()

        async def fetch() -> None:
            while len(seconds) < A_SECOND * SECONDS:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    now = time.monotonic()
                    seconds.extend(now - began[record.key] for record in records if record.key in began)

        async def write(number: int) -> None:
            key = b"%d" % number
            began[key] = time.monotonic()
            await producer.send_and_wait(topic, b'{"view_id":"01990000-0000-7000-8000-000000000000"}', key)

        try:
            fetching = asyncio.create_task(fetch())
            per_second = await _at_a_rate(write)
            await asyncio.wait_for(fetching, 60)
        finally:
            await consumer.stop()
    return Times(seconds, per_second)
