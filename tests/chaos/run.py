"""One scenario on servers of its own: traffic, faults, rest, and the verdict."""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError

from agents.lag import lags
from compose.connections import open_elasticsearch, open_postgres, open_redis
from compose.local.stack import ROOT, SERVERS
from compose.settings import Settings
from projections.queries.contents import contents_of
from projections.queries.rows import Row
from projections.queries.versions import read_versions
from projections.sinks.sink import StoreUnavailable
from schemas.streams import streams
from tests.chaos.faults import Faults
from tests.chaos.history import READS, WRITES, Entry, History, longest_gap
from tests.chaos.scenario import Scenario, course
from tests.chaos.traffic import (
    FILMS,
    Producer,
    Readers,
    StraightToKafka,
    ThroughGateway,
    announce_films,
    open_session,
)
from tests.chaos.truth import read_log, truth_of
from tests.chaos.verdict import Found, judge
from tests.servers import Servers

OUTPUT = ROOT / "test-output" / "chaos"
LONGEST_WAIT_SECONDS = 600.0  # for projections that are late already: what they hold then is judged all the same
KNOWN_SECONDS = 60.0  # until the gateway knows the films that are watched
POLL_SECONDS = 0.2
TOPICS = ("views", "positions", "videos")


class Outcome(NamedTuple):
    """`broken` is empty where every promise was kept. `outages`: for each fault, for each kind, the longest stretch without a success."""

    broken: list[str]
    outages: list[tuple[Entry, dict[str, float]]]
    caught_up_seconds: float | None
    counts: dict[str, int]


async def run(scenario: Scenario, seed: int, seconds: float, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Histories and logs stay in `folder`."""
    # A broker that is gone is what we are here for: the clients need not say it each time.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)  # noqa: ASYNC240
    servers = Servers("local")
    try:
        say("the servers start")
        await asyncio.to_thread(servers.need, {*SERVERS, "gateway", "worker"})
        return await _run(scenario, seed, seconds, folder, servers, say)
    finally:
        shutil.copytree(servers.stack.folder / "log", folder / "log", dirs_exist_ok=True)
        await asyncio.to_thread(servers.close, keep_logs=False)


async def _run(
    scenario: Scenario, seed: int, seconds: float, folder: Path, servers: Servers, say: Callable[[str], None]
) -> Outcome:
    settings = servers.settings(servers.prefix)
    await announce_films(settings)
    async with open_session(str(settings.gateway_url)) as session:
        await _until(lambda: _knows_the_films(session), KNOWN_SECONDS)
        history = History(folder / "history.jsonl")
        try:
            say(f"{seconds:g} s of traffic, and faults on the seed {seed}")
            await _disturbed(scenario, seed, seconds, folder, servers, settings, history, session)
        finally:
            history.close()
        ended = history.now
        say("the traffic has ended; the projections catch up")
        caught_up = await _until(lambda: _is_caught_up(settings), LONGEST_WAIT_SECONDS)
        found = await _found(settings, session)
    found.caught_up_seconds = history.now - ended if caught_up else None
    logs = [await asyncio.to_thread(read_log, settings.kafka_bootstrap, settings.named(topic)) for topic in TOPICS]
    truth = truth_of(*logs)
    broken = judge(history.entries, truth, found, within_seconds=scenario.within_seconds)
    (folder / "verdict.txt").write_text("\n".join(broken) or "every promise was kept")
    counts = {
        what: sum(e.what == what for e in history.entries)
        for what in ("sent", "acknowledged", "unknown", "read", "unread")
    }
    counts |= {"duplicates": len(truth.duplicates)}
    return Outcome(broken, outages_of(history.entries), found.caught_up_seconds, counts)


async def _disturbed(
    scenario: Scenario,
    seed: int,
    seconds: float,
    folder: Path,
    servers: Servers,
    settings: Settings,
    history: History,
    session: Any,
) -> None:
    """Traffic and faults; it ends once everybody who writes has been heard again after the last fault, or the bound has passed."""
    producers: list[Producer] = [
        StraightToKafka("kafka-1", 0, history, seed, settings, is_idempotent=True),
        StraightToKafka("kafka-2", 1, history, seed, settings, is_idempotent=False),
        ThroughGateway("gateway-1", 2, history, seed, session),
        ThroughGateway("gateway-2", 3, history, seed, session),
    ]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for each in (*producers, Readers(history, session)):
            group.create_task(each.run(stop))
        try:
            await Faults(servers, settings, history, folder).run(course(scenario, seed, seconds))
            await asyncio.sleep(max(0.0, seconds - history.now))
            await _until(lambda: _all_are_heard_again(history.entries, producers), scenario.within_seconds)
        finally:
            stop.set()


async def _all_are_heard_again(entries: Sequence[Entry], producers: Sequence[Producer]) -> bool:
    over = max(entry.at for entry in entries if entry.what == "over")
    heard = {(entry.who, entry.kind) for entry in entries if entry.what == "acknowledged" and entry.at >= over}
    return heard >= {(producer.name, kind) for producer in producers for kind in producer.kinds}


def outages_of(entries: Sequence[Entry]) -> list[tuple[Entry, dict[str, float]]]:
    """A fault's outage reaches until the next fault."""
    succeeded: dict[str, list[float]] = {kind: [] for kind in (*WRITES, *READS)}
    for entry in entries:
        if entry.what in ("acknowledged", "read"):
            succeeded[entry.kind].append(entry.at)
    faults = [entry for entry in entries if entry.what == "fault"]
    over = max(
        (entry.at for entry in entries), default=0.0
    )  # it begins at 0: who never succeeds has one gap from end to end
    ends = [*(fault.at for fault in faults[1:]), over]
    return [
        (fault, {kind: longest_gap([0.0, *moments, over], fault.at, end) for kind, moments in succeeded.items()})
        for fault, end in zip(faults, ends, strict=True)
    ]


async def _until(holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Whether it came to hold in time; a server that cannot be asked has not said yes."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if await holds():
                        return True
                except (StoreUnavailable, KafkaError, OSError):
                    pass
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return False


async def _knows_the_films(session: Any) -> bool:
    for film in FILMS:
        async with session.get(f"/api/videos/{film}") as answer:
            if answer.status != 200:
                return False
    return True


async def _is_caught_up(settings: Settings) -> bool:
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(open_postgres(settings))
        redis = await opened.enter_async_context(open_redis(settings))
        elasticsearch = await opened.enter_async_context(open_elasticsearch(settings))
        found = await lags(settings, streams(), pool, redis, elasticsearch)
    return not any(lag.lag_events for lag in found)


async def _found(settings: Settings, session: Any) -> Found:
    """The stores as they are, and the board as everybody sees it."""
    found = Found()
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(open_postgres(settings))
        redis = await opened.enter_async_context(open_redis(settings))
        elasticsearch = await opened.enter_async_context(open_elasticsearch(settings))
        versions = [version for version in await read_versions(pool) if version.state == "active"]
        for version in versions:
            async for row in contents_of(version, settings.prefix, pool, redis, elasticsearch):
                _keep(found, version.projection, row)
        found.parked = [
            str(tuple(row))
            for row in await pool.fetch("select projection, topic, partition, log_offset, reason from parked")
        ]
    async with session.get("/api/analytics/top?k=1000&timeframe=all_time", raise_for_status=True) as answer:
        body = await answer.json()
    assert body["source"] == "leaderboard", body["source"]
    found.board = {item["video_id"]: item["views"] for item in body["items"]}
    return found


def _keep(found: Found, projection: str, row: Row) -> None:
    table, key, values = row
    match projection, table:
        case "views", "views":
            found.raw.append((*key, values["view_id"]))
        case "views", "refused_views":
            found.refused[key] = values["earlier_offset"]
        case "statistics", "hourly":
            found.hours[key[0], key[1].isoformat()[:13]] = values["views"]
        case "statistics", "daily":
            found.days[key[0]] = found.days.get(key[0], 0) + values["views"]
        case "positions", "positions":
            found.positions[key[:2]] = values["position_seconds"]
        case "resume", "at" if key[2].endswith("/updated_at"):
            found.resume[key[:2]] = values["position_seconds"]
        case "catalogue", "videos":
            found.catalogue[key[0]] = values["title"]
        case "search", "documents":
            found.search[key[0]] = values["title"]
