"""The past, explanations and audits on the whole way from the log to the answer: routes and commands agree, whatever comes later."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.log_reader import log_of
from agents.past import Past
from agents.replaying import Replay
from compose.connections import open_postgres, open_redis
from compose.local.stack import ROOT
from compose.settings import Settings
from gateway.contract import Explanation
from projections.queries.versions import Versions
from projections.sinks.redis_keys import Keys
from schemas.events import VideoDeleted
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.given import announced, uploaded
from tests.integration.test_parked import append, is_so, mend, parked_reasons, refuse, written
from tests.servers import Servers
from tests.uploading import Gateway, gateway_on
from tests.working import Totals, produce, provision_log, settled, until, viewed, working

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(200)]

FILMS = ("alien", "heat")


@pytest.fixture
async def gateway(settings: Settings, servers: Servers, tmp_path: Path) -> AsyncIterator[Gateway]:
    await provision_log(settings)
    with working(settings, servers, tmp_path):
        async with gateway_on(settings) as gateway:
            yield gateway


async def ask(gateway: Gateway, path: str, moment: datetime | None = None, **query: str) -> tuple[int, Any]:
    query |= {"as_of": moment.isoformat()} if moment else {}
    async with gateway.http.get(path, params=query) as answer:
        return answer.status, await answer.json()


async def run(settings: Settings, *words: str) -> tuple[int, str]:
    """The status of a command, and what it said."""
    arguments = [sys.executable, "-m", "faust", "-A", "agents", *words]
    environment = {**os.environ, "ET_PREFIX": settings.prefix, "COLUMNS": "200"}
    done = await asyncio.to_thread(
        subprocess.run, arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


async def command(settings: Settings, moment: datetime) -> Any:
    """What `as-of TIME top` says."""
    status, said = await run(settings, "as-of", moment.isoformat(), "top", "--json")
    assert status == 0, said
    return json.loads(said[said.index("{") :])["items"]


async def is_answered(gateway: Gateway, path: str, moment: datetime) -> bool:
    status, _ = await ask(gateway, path, moment)
    assert status in (200, 503)
    return status == 200


async def test_the_past_is_answered_the_same_by_the_routes_and_the_log_whatever_comes_later(gateway: Gateway) -> None:
    settings, top = gateway.settings, "/api/analytics/top"
    before = datetime.now(UTC) - timedelta(seconds=1)
    await produce(settings, [step(film) for film in FILMS for step in (announced, uploaded)])
    views = [viewed(f"view-{n}", FILMS[n % 3 == 0]) for n in range(300)]
    await produce(settings, views + views[:50])
    then = datetime.now(UTC)

    paths = [top, "/api/videos", *(f"/api/{path}" for path in ("videos/heat", "analytics/videos/heat/stats"))]
    paths.append("/api/analytics/videos/heat/history")
    # Until the worker has folded all that was recorded by then, there is no answer at all.
    await until(lambda: is_answered(gateway, top, then))
    answers = {path: await ask(gateway, path, then) for path in paths}
    assert {status for status, _ in answers.values()} == {200}
    _, board = answers[top]
    assert [(item["video_id"], item["title"], item["views"]) for item in board["items"]] == [
        ("alien", "Heat", 200),
        ("heat", "Heat", 100),
    ]
    assert (datetime.fromisoformat(board["as_of"]), board["source"]) == (then, "raw")
    assert await command(settings, then) == board["items"]
    in_log = Past(Replay(log_of(settings), streams()), then, Versions())
    assert sorted(await in_log.films()) == sorted(film["id"] for film in answers["/api/videos"][1]["items"])
    assert (await in_log.views("heat")).all_time == answers["/api/analytics/videos/heat/stats"][1]["total_views"]

    status, explained = await ask(gateway, "/api/analytics/videos/heat/explain")
    Explanation.model_validate(explained)
    assert (status, explained["counted"], explained["records"]) == (200, 100, 117)
    assert [(refusals["reason"], refusals["views"]) for refusals in explained["refused"]] == [("duplicate", 17)]

    late = [viewed(f"late-{n}", "heat", at=then - timedelta(minutes=n)) for n in range(200)]
    await produce(settings, [*late, VideoDeleted(video_id="heat", occurred_at=then)])

    async def is_gone() -> bool:
        return (await ask(gateway, "/api/videos/heat"))[0] == 404

    await until(is_gone)
    assert (await ask(gateway, "/api/videos/heat", datetime.now(UTC)))[0] == 404
    assert {path: await ask(gateway, path, then) for path in paths} == answers
    again = await Past(Replay(log_of(settings), streams()), then, Versions()).top(10, "day")
    assert [item.views for item in again.items] == [200, 100]

    assert (await ask(gateway, top, before))[1]["items"] == []
    assert (await ask(gateway, "/api/videos/alien", before))[0] == 404


async def test_a_moment_that_cannot_be_answered_for_is_refused_in_words(gateway: Gateway) -> None:
    to_come, past = datetime.now(UTC) + timedelta(minutes=1), datetime.now(UTC) - timedelta(minutes=1)
    for path, moment, more, words in (
        ("/api/analytics/top", to_come, {}, "yet to come"),
        ("/api/analytics/top", past, {"after": "token"}, "send one of them"),
        ("/api/videos/search", past, {"query": "heat"}, "search knows only what there is now"),
        ("/api/analytics/top/stream", past, {}, "a board that is followed knows only"),
    ):
        status, problem = await ask(gateway, path, moment, **more)
        assert status == 400
        assert words in problem["detail"]


async def test_an_explanation_and_an_audit_say_equal_until_somebody_meddles(gateway: Gateway) -> None:
    settings = gateway.settings
    await produce(settings, [viewed(f"view-{n}", "heat") for n in range(100)])
    await produce(settings, [viewed(f"view-{n}", "heat") for n in range(10)])
    expected = Counter(heat=100)
    assert await settled(settings, expected) == Totals(expected, expected, expected)
    status, said = await run(settings, "explain", "heat", "--from-log")
    assert (status, "heat, all_time: 110 records" in said, ": equal" in said) == (0, True, True), said
    status, said = await run(settings, "audit")
    assert (status, said.count(" equal: 1 films, 100 views")) == (0, 2), said
    async with open_redis(settings) as redis:
        await redis.zincrby(Keys(settings.prefix, "leaderboard", 1).top("year"), 1, "heat")
    status, said = await run(settings, "audit", "leaderboard", "--timeframe", "year")
    assert (status, "leaderboard_v1 1 differences" in said, "heat" in said) == (1, True, True), said


@pytest.mark.timeout(400)
async def test_the_past_and_every_proof_know_what_was_parked_retried_or_discarded_and_by_which_rule_a_version_counts(
    gateway: Gateway,
) -> None:
    settings = gateway.settings
    await produce(settings, [step(film) for film in ("heat", "narrow") for step in (announced, uploaded)])
    async with open_postgres(settings, connections=2) as pool:
        for table in ("views_v2", "daily_v1"):
            await refuse(pool, table, "video_id <> 'narrow'")
        views = [viewed(f"view-{n}", "narrow" if n < 3 else "heat") for n in range(23)]
        await produce(settings, [view.model_copy(update={"watched_seconds": n}) for n, view in enumerate(views)])
        (spoilt,) = await append(settings, *written(viewed("spoilt", "narrow")), value=b'{"video_id": "narrow"')
        for projection, refusals in (("statistics", 3), ("views", 3), ("leaderboard", 0)):
            reasons = Counter({"refused-by-store": refusals, "undecodable": 1})
            await until(lambda p=projection, r=reasons: is_so(parked_reasons(pool, p), +r))
        then = datetime.now(UTC)
        for table in ("views_v2", "daily_v1"):
            await mend(pool, table)
        await equal(settings, "parked", "retry", "--all", "--reason", "refused-by-store")
        home = partition_of(b"spoilt", streams().topics["views"].partitions)
        await equal(settings, "parked", "discard", f"views:{home}:{spoilt}", "--why", "cut off")
        for projection in ("statistics", "views", "leaderboard"):
            await until(lambda p=projection: is_so(parked_reasons(pool, p), {}))
    said = await equal(settings, "audit")
    assert said.count(" equal: 2 films, 23 views") == 2, said
    said = await equal(settings, "explain", "narrow", "--from-log")
    assert ("narrow, all_time: 4 records" in said, "(discarded)" in said, ": equal" in said) == (True, True, True), said

    history = "/api/analytics/videos/narrow/history"
    for moment, counted in ((then, 0), (datetime.now(UTC), 3)):
        await until(lambda m=moment: is_answered(gateway, history, m))
        points = (await ask(gateway, history, moment))[1]["points"]
        assert sum(point["views"] for point in points) == counted
    said = await equal(settings, "as-of", then.isoformat(), "history", "narrow", "--json")
    assert json.loads(said[said.index("{") :])["items"] == []

    await equal(settings, "what-if", "leaderboard", "--watched-at-least", "10")
    await equal(settings, "switch", "leaderboard", "--version", "2")
    said = await equal(settings, "audit", "leaderboard")
    assert "leaderboard_v2 equal: 1 films, 13 views" in said
    said = await equal(settings, "explain", "heat", "--from-log")
    assert re.search(r"leaderboard\D+13\D+13\D+1", said), said
    now = datetime.now(UTC)
    assert [item["views"] for item in await command(settings, now)] == [13]
    await until(lambda: is_answered(gateway, "/api/analytics/top", now))
    assert [item["views"] for item in (await ask(gateway, "/api/analytics/top", now))[1]["items"]] == [13]


async def equal(settings: Settings, *words: str) -> str:
    """What a command says that has nothing to complain of."""
    status, said = await run(settings, *words)
    assert status == 0, said
    return said
