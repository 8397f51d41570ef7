"""Poison on real servers: each kind is parked in words, decided about by events, and folded exactly once, in order, when it is retried."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from compose.connections import open_postgres
from compose.settings import Settings
from schemas.envelope import Message, encode
from schemas.events import Event, PositionUpdated
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.given import announced, uploaded
from tests.servers import Servers
from tests.working import Worker, command, produce, producing, provision_log, until, viewed, working

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(240)]

GOOD = encode(viewed("good", "film"), event_id="good", source="/tests")
PARTITIONS = streams().topics["views"].partitions
HOME = partition_of(GOOD.key, PARTITIONS)
MOVED = PositionUpdated(viewer_id="ann", video_id="film", position_seconds=1.0, occurred_at=datetime.now(UTC))
TYPE_AND_VERSION = [(name, value) for name, value in GOOD.headers if name != "ce_type"]


def data(**fields: Any) -> bytes:
    return orjson.dumps({**orjson.loads(GOOD.value), **fields})


# What is produced instead of a good view, the reason that it is parked for, and words of the sentence that says what to mend.
POISON: dict[str, tuple[dict[str, Any], str, str]] = {
    "undecodable bytes": ({"value": b"\xff\xfe\x00"}, "undecodable", "the value is no JSON"),
    "no JSON": ({"value": b"no json"}, "undecodable", "the value is no JSON"),
    "no headers": ({"headers": []}, "undecodable", "send CloudEvents headers"),
    "a null value": ({"value": None}, "undecodable", "null"),
    "900 kB": ({"value": data(padding="x" * 900_000)}, "undecodable", "at most 524,288"),
    "a field missing": ({"value": b"{}"}, "invalid-event", "view_id"),
    "a field out of bounds": ({"value": data(watched_seconds=-1)}, "invalid-event", "watched_seconds"),
    "the year before the first": ({"value": data(occurred_at="1969-12-31T23:59:59Z")}, "invalid-event", "1970 to 2099"),
    "the year after the last": ({"value": data(occurred_at="2100-01-01T00:00:00Z")}, "invalid-event", "1970 to 2099"),
    "an unknown type": (
        {"headers": [*TYPE_AND_VERSION, ("ce_type", b"entertainmenttime.video.liked.v1")]},
        "unknown-type",
        "asyncapi.yaml",
    ),
    "another topic's event": (
        {"value": MOVED.model_dump_json().encode(), "headers": [*TYPE_AND_VERSION, ("ce_type", MOVED.type.encode())]},
        "wrong-topic",
        "belongs on the topic positions",
    ),
    "another's key": ({"key": b"another"}, "wrong-key", "keyed by view_id"),
    "another partition": ({"partition": (HOME + 1) % PARTITIONS}, "wrong-partition", "partitioner=murmur2"),
}  # fmt: skip


@pytest.fixture
def worker(settings: Settings, servers: Servers, tmp_path: Path) -> Iterator[Worker]:
    asyncio.run(provision_log(settings))
    with working(settings, servers, tmp_path, "one") as (worker,):
        yield worker


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Any]:
    async with open_postgres(settings, connections=2) as opened:
        yield opened


async def append(settings: Settings, *messages: Message, **instead: Any) -> list[int]:
    """The offsets at which they lie."""
    async with producing(settings) as producer:
        sent = [
            await producer.send(
                settings.named(message.topic),
                **{"value": message.value, "key": message.key, "headers": message.headers, **instead},
            )
            for message in messages
        ]
        return [(await one).offset for one in sent]


def written(*events: Event) -> list[Message]:
    return [encode(event, event_id=str(number), source="/tests") for number, event in enumerate(events)]


async def table_is_there(pool: Any, table: str) -> bool:
    return bool(await pool.fetchval("select to_regclass($1) is not null", table))


async def refuse(pool: Any, table: str, rule: str) -> None:
    """From now on the store refuses rows: as a release does that made the table too narrow."""
    await until(lambda: table_is_there(pool, table))
    await pool.execute(f"alter table {table} add constraint too_narrow check ({rule})")


async def mend(pool: Any, table: str) -> None:
    await pool.execute(f"alter table {table} drop constraint too_narrow")


async def views_of(pool: Any, film: str) -> int:
    found: int = await pool.fetchval("select coalesce(sum(views), 0)::bigint from daily_v1 where video_id = $1", film)
    return found


async def parked_reasons(pool: Any, projection: str) -> Counter[str]:
    rows = await pool.fetch("select reason from parked where projection = $1 and outcome is null", projection)
    return Counter(row[0] for row in rows)


async def test_each_kind_of_poison_is_parked_with_its_bytes_its_place_and_a_sentence_and_what_lies_behind_goes_on(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    expected = {}
    for name, (instead, reason, words) in POISON.items():
        (offset,) = await append(settings, GOOD, **{"partition": HOME, **instead})
        expected[instead.get("partition", HOME), offset] = name, instead, reason, words
    early = datetime.now(UTC) + timedelta(hours=1)
    await append(settings, *written(viewed("early", "film", at=early)), GOOD)

    async def is_counted() -> bool:
        return await table_is_there(pool, "daily_v1") and await views_of(pool, "film") == 1

    await until(is_counted)
    every = "select count(*) from parked"
    await until(lambda: is_so(pool.fetchval(every), 3 * len(POISON)))
    for projection in ("views", "statistics", "leaderboard"):
        rows = await pool.fetch("select * from parked where projection = $1", projection)
        found = {(row["partition"], row["log_offset"]): row for row in rows}
        assert found.keys() == expected.keys()
        for place, (name, instead, reason, words) in expected.items():
            row = found[place]
            assert (row["reason"], words in row["detail"]) == (reason, True), f"{name}: {row['detail']}"
            assert row["value"] == instead.get("value", GOOD.value), name
            assert row["key"] == instead.get("key", GOOD.key), name
    # A view from the future is no poison: the rule of counting refuses it, and says so.
    refused = "select array_agg(view_id || ' ' || reason) from refused_views_v2"
    await until(lambda: is_so(pool.fetchval(refused), ["early future"]))
    (offset,) = (offset for (_, offset), (name, *_) in expected.items() if name == "an unknown type")
    shown = await command(settings, servers, "parked", "show", f"views:{HOME}:{offset}")
    assert "ce_type: entertainmenttime.video.liked.v1" in shown
    assert '"view_id": "good"' in shown
    assert "unknown-type, undecided" in shown


async def test_what_was_parked_is_folded_once_by_a_retry_though_the_worker_is_killed_on_the_way(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    await refuse(pool, "daily_v1", "video_id <> 'narrow'")
    films = ["narrow" if number % 3 == 0 else "wide" for number in range(60)]
    await produce(settings, [viewed(f"view-{number}", film) for number, film in enumerate(films)])
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {"refused-by-store": 20}))
    await until(lambda: is_so(views_of(pool, "wide"), 40))
    assert await views_of(pool, "narrow") == 0
    await mend(pool, "daily_v1")
    said = await command(settings, servers, "parked", "retry", "--all", "--reason", "refused-by-store", "--by", "ops")
    assert "20 records retried" in said
    await until(lambda: more_than(views_of(pool, "narrow"), 0))
    worker.kill()
    worker.start()
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {}))
    assert [await views_of(pool, film) for film in ("narrow", "wide")] == [20, 40]
    again = await command(settings, servers, "parked", "retry", "--all")
    assert "0 records retried" in again


async def test_a_view_that_one_store_alone_refused_takes_no_id_there_and_counts_once_everywhere(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    await refuse(pool, "daily_v1", "video_id <> 'narrow'")
    again = viewed("again", "narrow")
    await append(settings, *written(again, viewed("between", "wide"), again))
    # The raw views know of no trouble: there the second one is a duplicate.
    raw = "select array_agg(view_id || ' ' || reason) from refused_views_v2"
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {"refused-by-store": 2}))
    await until(lambda: is_so(pool.fetchval(raw), ["again duplicate"]))
    await mend(pool, "daily_v1")
    await command(settings, servers, "parked", "retry", "--all")
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {}))
    assert [await views_of(pool, film) for film in ("narrow", "wide")] == [1, 1]


async def test_a_retried_view_that_its_producer_sends_again_counts_once_live_and_folded_anew(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    await refuse(pool, "daily_v1", "video_id <> 'narrow'")
    # Once the first is on its way to be refused, others lie around it on its partition.
    views = [viewed(f"view-{number}", "narrow" if number % 3 == 0 else "wide") for number in range(60)]
    await produce(settings, views)
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {"refused-by-store": 20}))
    # In vain: the store refuses them still, and an id that nothing came of is free.
    await command(settings, servers, "parked", "retry", "--all")
    without_effect = "select count(*) from parked where projection = 'statistics' and outcome = 'without-effect'"
    await until(lambda: is_so(pool.fetchval(without_effect), 20))
    await mend(pool, "daily_v1")
    await produce(settings, views[:6])
    await until(lambda: is_so(views_of(pool, "narrow"), 2))
    worker.kill()
    said = await command(settings, servers, "parked", "retry", "--all")
    assert "20 records retried" in said
    said = await command(settings, servers, "parked", "retry", "--all")
    assert "0 records retried; a decision about 20 is on its way already" in said
    worker.start()
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {}))
    await produce(settings, views)
    refused = "select count(*) from refused_views_v2 where reason = 'duplicate'"
    await until(lambda: is_so(pool.fetchval(refused), 66))
    await command(settings, servers, "rebuild", "statistics")
    said = await command(settings, servers, "verify", "statistics")
    assert [await views_of(pool, film) for film in ("narrow", "wide")] == [20, 40]
    anew = "select coalesce(sum(views), 0)::bigint from daily_v2 where video_id = $1"
    assert [await pool.fetchval(anew, film) for film in ("narrow", "wide")] == [20, 40]
    assert "equal" in said, said


async def test_a_record_and_one_that_waits_behind_it_are_discarded_by_one_command(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    await refuse(pool, "videos_v1", "title <> 'Narrow'")
    first, second, _ = await append(
        settings, *written(announced("film", "Narrow"), announced("film", "Broad"), uploaded("film"))
    )
    await until(lambda: is_so(parked_reasons(pool, "catalogue"), {"refused-by-store": 1, "waits-behind": 2}))
    home = partition_of(b"film", streams().topics["videos"].partitions)
    both = [f"videos:{home}:{offset}" for offset in (first, second)]
    said = await command(settings, servers, "parked", "discard", *both, "--why", "neither is a film")
    assert "2 records discarded" in said
    await until(lambda: is_so(parked_reasons(pool, "catalogue"), {}))
    row = await pool.fetchrow("select title, size from videos_v1 where video_id = 'film'")
    assert (row["title"], row["size"] is not None) == (None, True)


async def test_a_films_events_wait_behind_the_parked_one_and_follow_it_in_order(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    await refuse(pool, "videos_v1", "title <> 'Narrow'")
    film = announced("film", "Narrow"), uploaded("film"), announced("film", "Broad"), announced("other", "Other")
    (first, *_) = await append(settings, *written(*film))
    await until(lambda: is_so(parked_reasons(pool, "catalogue"), {"refused-by-store": 1, "waits-behind": 2}))
    home = partition_of(b"film", streams().topics["videos"].partitions)
    detail = await pool.fetchval("select detail from parked where reason = 'waits-behind' limit 1")
    assert f"decide about videos:{home}:{first} first" in detail
    await until(lambda: is_so(pool.fetchval("select title from videos_v1 where video_id = 'other'"), "Other"))
    await mend(pool, "videos_v1")
    await command(settings, servers, "parked", "retry", f"videos:{home}:{first}", "--why", "the column is wide now")
    await until(lambda: is_so(parked_reasons(pool, "catalogue"), {}))
    row = await pool.fetchrow("select title, size, uploaded_at from videos_v1 where video_id = 'film'")
    assert (row["title"], row["size"], row["uploaded_at"] is not None) == ("Broad", None, True)
    shown = await command(settings, servers, "parked", "show", f"videos:{home}:{first}")
    assert "retried for catalogue by" in shown
    assert "the column is wide now" in shown


async def test_too_much_poison_in_a_row_stops_the_partition_in_words_until_somebody_decides(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    await append(settings, *[GOOD] * 130, value=b"no json", partition=HOME)
    await append(settings, GOOD)
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {"undecodable": 100}))

    async def says_so() -> bool:
        return "parked retry --all --projection statistics" in worker.said

    await until(says_so)
    assert await views_of(pool, "film") == 0
    for _ in range(2):
        await command(settings, servers, "parked", "discard", "--all", "--reason", "undecodable", "--why", "no events")

        async def goes_on() -> bool:
            return await views_of(pool, "film") == 1 or sum((await parked_reasons(pool, "statistics")).values()) == 30

        await until(goes_on)
    await until(lambda: is_so(views_of(pool, "film"), 1))


async def test_a_partition_that_stands_still_before_the_retries_of_what_it_has_parked_goes_on_to_them(
    settings: Settings, servers: Servers, worker: Worker, pool: Any
) -> None:
    await refuse(pool, "daily_v1", "video_id <> 'narrow'")
    names = (f"view-{number}" for number in range(10_000))
    views = [viewed(name, "narrow") for name in names if partition_of(name.encode(), PARTITIONS) == HOME][:130]
    await produce(settings, views)

    async def says_so() -> bool:
        return "parked retry --all --projection statistics" in worker.said

    await until(says_so)
    await mend(pool, "daily_v1")
    said = await command(settings, servers, "parked", "retry", "--all")
    assert "100 records retried" in said
    await until(lambda: is_so(views_of(pool, "narrow"), 130))
    await until(lambda: is_so(parked_reasons(pool, "statistics"), {}))


async def is_so(asked: Any, expected: Any) -> bool:
    return bool(await asked == expected)


async def more_than(asked: Any, least: int) -> bool:
    return bool(await asked > least)
