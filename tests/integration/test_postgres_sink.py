"""What the sink in Postgres promises beyond the contract of all sinks."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from compose.connections import open_postgres
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.catalogue import catalogue
from projections.changes import Change, Increment, Remove, Tally, Upsert
from projections.positions import positions
from projections.queries.checkpoints import PostgresCheckpoints
from projections.sinks.memory import MemorySink
from projections.sinks.postgres import WORTH_STAGING, PostgresSink, reaching_postgres
from projections.sinks.sink import ChangeRefused, CheckpointMoved, LogIdentity, StoreUnavailable
from projections.statistics import statistics
from projections.views import views
from schemas.events import PositionUpdated
from schemas.log import Place
from tests.contract.gates import GatedPool, Gates
from tests.given import EVENING, announced, deleted, forgotten, progressed, recorded, transcoded, uploaded, viewed

pytestmark = pytest.mark.usefixtures("postgres")

LOG = LogIdentity("cluster", "topic", 6)
START = Place("views", 0, 0)
ONE_VIEW: list[Change] = [Increment("hourly", {"video_id": "heat", "start": EVENING})]


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Any]:
    await provision_tables(settings)
    async with open_postgres(settings) as opened:
        yield opened


@pytest.fixture
async def sink(pool: Any) -> PostgresSink:
    """Counters, ready for their first batch."""
    made = PostgresSink(pool, statistics)
    await made.prepare()
    await made.checkpoint("views", 0, LOG)
    return made


async def views_of(pool: Any, video: str) -> int:
    total: int = await pool.fetchval("select coalesce(sum(views), 0)::bigint from hourly_v1 where video_id = $1", video)
    return total


@pytest.mark.parametrize("partition", [0, 1])
@pytest.mark.parametrize("asked", ["nothing", "a plan"])
async def test_a_worker_frozen_for_good_holds_its_heirs_up_for_seconds_only(
    pool: Any, sink: PostgresSink, settings: Settings, asked: str, partition: int
) -> None:
    """The next owner of its partition waits for the checkpoint, the owner of another one for the film's counter."""
    await sink.checkpoint("views", 1, LOG)
    async with open_postgres(settings, connections=1) as single, single.acquire() as zombie:
        await zombie.execute("begin")
        await zombie.execute(
            "update checkpoints set next_offset = 1 where topic = 'views' and partition = $1", partition
        )
        await zombie.execute("insert into hourly_v1 values ('heat', $1, 1)", EVENING)
        if asked == "a plan":  # the server takes a transaction for active after it
            await zombie.prepare("select 41 + $1::int")
        heir = PostgresSink(pool, statistics, frozen_seconds=0.2)
        async with asyncio.timeout(10):
            while (await sink.checkpoint("views", 0, LOG)).place == START:
                with contextlib.suppress(StoreUnavailable):
                    await heir.apply(ONE_VIEW, expected=START, next_offset=1)
        with pytest.raises(StoreUnavailable), reaching_postgres():
            await zombie.execute("commit")
    assert await views_of(pool, "heat") == 1


async def test_a_worker_begins_although_a_frozen_one_holds_its_tables(
    pool: Any, sink: PostgresSink, settings: Settings
) -> None:
    async with open_postgres(settings, connections=1) as single, single.acquire() as zombie, zombie.transaction():
        await zombie.execute("insert into hourly_v1 values ('heat', $1, 1)", EVENING)
        await asyncio.wait_for(PostgresSink(pool, statistics).prepare(), 5)


async def test_a_worker_that_is_slow_is_waited_for(pool: Any, sink: PostgresSink, settings: Settings) -> None:
    async with open_postgres(settings, connections=1) as single, single.acquire() as slow:
        await slow.execute("begin")
        await slow.execute("update checkpoints set next_offset = 1 where topic = 'views' and partition = 0")
        working = asyncio.create_task(slow.execute("select pg_sleep(0.5)"))
        heir = PostgresSink(pool, statistics, frozen_seconds=0.2)
        with pytest.raises(StoreUnavailable):
            await heir.apply(ONE_VIEW, expected=START, next_offset=1)
        await working
        await slow.execute("commit")
    with pytest.raises(CheckpointMoved):
        await heir.apply(ONE_VIEW, expected=START, next_offset=1)


async def test_a_connection_that_the_server_ends_is_no_error_of_the_batch(
    pool: Any, sink: PostgresSink, settings: Settings
) -> None:
    async with open_postgres(settings, connections=1) as single:
        worker = PostgresSink(single, statistics)
        await worker.prepare()
        await pool.fetchval("select pg_terminate_backend($1, 5000)", await single.fetchval("select pg_backend_pid()"))
        with contextlib.suppress(StoreUnavailable):
            await worker.apply(ONE_VIEW, expected=START, next_offset=1)
        with contextlib.suppress(CheckpointMoved):
            await worker.apply(ONE_VIEW, expected=START, next_offset=1)
    assert await views_of(pool, "heat") == 1


@pytest.mark.parametrize("value", ["a\0b", "half a pair: \ud800"])
async def test_a_value_that_no_table_holds_is_refused_with_nothing_moved(
    pool: Any, sink: PostgresSink, value: str
) -> None:
    changes = [*ONE_VIEW, Increment("hourly", {"video_id": value, "start": EVENING})]
    with pytest.raises(ChangeRefused) as refused:
        await sink.apply(changes, expected=START, next_offset=2)
    assert refused.value.changes
    assert (await sink.checkpoint("views", 0, LOG)).place == START
    assert await views_of(pool, "heat") == 0


async def test_a_counter_that_would_overflow_is_refused(sink: PostgresSink) -> None:
    key = {"video_id": "heat", "start": EVENING}
    await sink.apply([Increment("hourly", key, by=2**63 - 1)], expected=START, next_offset=1)
    with pytest.raises(ChangeRefused):
        await sink.apply([Increment("hourly", key)], expected=START._replace(offset=1), next_offset=2)


async def test_who_waits_is_told_when_a_checkpoint_has_moved(pool: Any, sink: PostgresSink) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    def hear(*told: Any) -> None:
        heard.put_nowait(told[-1])

    async with pool.acquire() as connection:
        channel = await connection.fetchval("select current_schema() || '_checkpoints'")
        await connection.add_listener(channel, hear)
        await sink.apply(ONE_VIEW, expected=START, next_offset=41)
        assert await asyncio.wait_for(heard.get(), 10) == "statistics_v1 views 0 41"
        await connection.remove_listener(channel, hear)
    checkpoints = PostgresCheckpoints(pool, "statistics", version=1)
    assert await checkpoints.next_offsets([("views", 0)]) == {("views", 0): 41}


async def test_a_projection_that_has_not_begun_is_at_zero(pool: Any) -> None:
    checkpoints = PostgresCheckpoints(pool, "statistics", version=1)
    assert await checkpoints.next_offsets([("views", 3)]) == {("views", 3): 0}


async def test_two_workers_that_count_the_same_films_never_deadlock(pool: Any, sink: PostgresSink) -> None:
    videos = [f"film-{number}" for number in range(200)]

    async def count(partition: int) -> None:
        worker = PostgresSink(pool, statistics)
        await worker.prepare()
        place = (await worker.checkpoint("views", partition, LOG)).place
        in_own_order = videos if partition % 2 else videos[::-1]
        for _ in range(5):
            changes = [Increment("hourly", {"video_id": video, "start": EVENING}) for video in in_own_order]
            await worker.apply(changes, expected=place, next_offset=place.offset + 200)
            place = place._replace(offset=place.offset + 200)

    await asyncio.gather(*(count(partition) for partition in range(1, 5)))
    assert {await views_of(pool, video) for video in videos[::50]} == {20}


async def test_a_row_that_is_removed_may_come_again_in_the_same_batch(pool: Any) -> None:
    sink = PostgresSink(pool, positions)
    await sink.prepare()
    place = (await sink.checkpoint("positions", 0, LOG)).place

    def at(viewer: str, seconds: float) -> Upsert:
        key = {"viewer_id": viewer, "video_id": "heat", "session_id": ""}
        values = {"position_seconds": seconds, "completed": False, "updated_at": EVENING + timedelta(seconds=seconds)}
        return Upsert("positions", key, values, "updated_at")

    changes = [at("ann", 900.0), at("bob", 1.0), Remove("positions", {"viewer_id": "ann"}), at("ann", 5.0)]
    await sink.apply(changes, expected=place, next_offset=4)
    rows = await pool.fetch("select viewer_id, position_seconds from positions_v2 order by viewer_id")
    assert [tuple(row) for row in rows] == [("ann", 5.0), ("bob", 1.0)]


async def test_a_whole_life_of_a_film_in_one_batch_is_its_last_state(pool: Any) -> None:
    sink = PostgresSink(pool, catalogue)
    await sink.prepare()
    place = (await sink.checkpoint("videos", 0, LOG)).place
    life = recorded([announced("a"), uploaded("a"), progressed("a", 0.5), transcoded("a"), deleted("a")])
    await sink.apply(list(catalogue.fold(life)), expected=place, next_offset=5)
    row = await pool.fetchrow("select status, progress, variants, deleted_at is not null as gone from videos_v1")
    assert (row["status"], row["progress"], row["variants"][0]["quality"], row["gone"]) == (
        "COMPLETED",
        1.0,
        "240p",
        True,
    )


async def test_what_is_dropped_leaves_no_checkpoint_behind(sink: PostgresSink) -> None:
    await sink.apply(ONE_VIEW, expected=START, next_offset=1)
    await sink.drop()
    await sink.prepare()
    assert (await sink.checkpoint("views", 0, LOG)).place == START
    with pytest.raises(CheckpointMoved):
        await sink.apply(ONE_VIEW, expected=START._replace(offset=1), next_offset=2)


async def test_rows_that_are_there_already_are_written_over(pool: Any) -> None:
    """As when somebody has set a checkpoint back: rows come by COPY, which knows no conflict."""
    sink = PostgresSink(pool, views)
    await sink.prepare()
    await sink.checkpoint("views", 0, LOG)
    folded = list(views.fold(recorded([viewed("heat", "view-1"), viewed("heat", "view-2")])))
    await sink.apply(folded, expected=START, next_offset=2)
    await pool.execute("update checkpoints set next_offset = 0 where projection = 'views'")
    await sink.apply(folded, expected=START, next_offset=2)
    assert await pool.fetchval("select count(*) from views_v2") == 2
    assert (await sink.checkpoint("views", 0, LOG)).next_offset == 2


async def test_many_rows_at_once_are_what_they_are_one_by_one(pool: Any) -> None:
    """From a table that they are copied to first: newer and older, in batches that speak of the same rows, and of somebody forgotten."""
    drawn = random.Random(7)
    sink, model = PostgresSink(pool, positions), MemorySink(positions)
    await sink.prepare()
    for topic in ("positions", "viewers"):
        await sink.checkpoint(topic, 0, LOG)
        await model.checkpoint(topic, 0, LOG)

    async def fold(topic: str, events: Any, from_offset: int) -> None:
        changes, place = list(positions.fold(recorded(events))), Place(topic, 0, from_offset)
        for store in (sink, model):
            await store.apply(changes, expected=place, next_offset=from_offset + len(events))

    def sessions(count: int) -> list[PositionUpdated]:
        return [
            PositionUpdated(
                viewer_id=f"viewer-{drawn.randrange(2_000)}",
                video_id=drawn.choice(["heat", "alien"]),
                position_seconds=drawn.randrange(6_000),
                session_id=drawn.choice([None, "tv"]),
                state=drawn.choice(["playing", "paused"]),
                occurred_at=EVENING + timedelta(seconds=drawn.randrange(10_000)),
            )
            for _ in range(count)
        ]

    await fold("positions", sessions(2 * WORTH_STAGING), 0)
    await fold("viewers", [forgotten("viewer-7")], 0)
    await fold("positions", sessions(4 * WORTH_STAGING), 2 * WORTH_STAGING)
    found = await pool.fetch(f"select * from {positions.full_name} order by viewer_id, video_id, session_id")
    assert len(found) > WORTH_STAGING
    assert [dict(row) for row in found] == [{"moved_at": None} | row for row in by_key(model.rows("positions"))]


async def test_many_counts_at_once_are_added_to_what_is_there(pool: Any, sink: PostgresSink) -> None:
    counts = {(f"film-{number}", EVENING): number % 3 + 1 for number in range(WORTH_STAGING)}
    for first in range(3):
        tally: list[Change] = [Tally("hourly", ("video_id", "start"), counts)]
        await sink.apply(tally, expected=START._replace(offset=first), next_offset=first + 1)
    rows = await pool.fetch(f"select video_id, views from hourly_v{statistics.version}")
    assert dict(map(tuple, rows)) == {film: 3 * by for (film, _), by in counts.items()}


def by_key(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: (row["viewer_id"], row["video_id"], row["session_id"]))


async def forgetting(pool: Any, gates: Gates | None = None) -> PostgresSink:
    """The raw views as another worker holds them."""
    made = PostgresSink(GatedPool(pool, gates) if gates else pool, views)
    await made.prepare()
    return made


ANN_WATCHES, ANN_IS_FORGOTTEN = [viewed("heat", viewer="ann", session="tv")], [forgotten("ann")]


@pytest.mark.parametrize("first", ["the view", "the forgetting"])
async def test_a_view_that_is_written_while_its_viewer_is_forgotten_names_nobody(pool: Any, first: str) -> None:
    """Whoever is not yet committed is invisible to the other, which therefore has to wait."""
    order = [("views", ANN_WATCHES), ("viewers", ANN_IS_FORGOTTEN)]
    if first == "the forgetting":
        order.reverse()
    gates = Gates(OSError("cut"))
    early, late = await forgetting(pool, gates), await forgetting(pool)

    async def fold(sink: PostgresSink, topic: str, events: Any, partition: int = 0) -> None:
        place = (await sink.checkpoint(topic, partition, LOG)).place
        await sink.apply(list(views.fold(recorded(events, partition=partition))), expected=place, next_offset=1)

    gates.passed = 0
    await fold(early, *order[0], 9)
    is_whole, go_on = gates.freeze_at(gates.passed - 2)  # before the commit
    one = asyncio.create_task(fold(early, *order[0]))
    await asyncio.wait_for(is_whole.wait(), 10)
    other = asyncio.create_task(fold(late, *order[1]))
    await asyncio.wait([other], timeout=0.3)
    go_on.set()
    await asyncio.gather(one, other)
    rows = await pool.fetch("select viewer_id, session_id from views_v2 where log_partition = 0")
    assert [tuple(row) for row in rows] == [(None, None)]


async def test_a_forgotten_viewer_is_found_by_an_index(pool: Any) -> None:
    await forgetting(pool)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("set local enable_seqscan = off")
        plan = await connection.fetch("explain select 1 from views_v2 where viewer_id = any($1::text[])", ["ann"])
    assert "views_v2_of_viewer" in str(plan)


async def test_a_column_that_a_migration_has_still_to_add_is_waited_for(pool: Any) -> None:
    """As by a worker that begins while the migrations run."""
    with pytest.raises(StoreUnavailable, match="provisioning"), reaching_postgres():
        await pool.fetch("select not_there_yet from versions")
