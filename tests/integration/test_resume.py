"""Resume positions in Redis: whatever order updates arrive in, and in whatever batches, the answer is that of the plain fold."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from compose.connections import open_redis
from compose.settings import Settings
from projections.changes import Change
from projections.queries.resume import Resume, Stopped
from projections.queries.versions import Version, Versions
from projections.resume import forget_viewer, resume
from projections.sinks.memory import MemorySink
from projections.sinks.redis import RedisSink
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_layout import Limits
from projections.sinks.sink import ChangeRefused, LogIdentity
from schemas.events import PositionUpdated
from schemas.log import Place
from tests.given import forgotten, recorded, stopped

pytestmark = pytest.mark.usefixtures("redis")

LOG = LogIdentity("cluster", "topic", 1)
EVENING = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
numbers = count()

updates = st.builds(
    PositionUpdated,
    viewer_id=st.sampled_from(["ann", "bob"]),
    video_id=st.sampled_from(["heat", "alien"]),
    position_seconds=st.integers(0, 100).map(float),
    duration_seconds=st.sampled_from([None, 100.0]),
    session_id=st.sampled_from([None, "phone", "tv:1"]),
    state=st.sampled_from([None, "playing", "paused", "stopped"]),
    occurred_at=st.integers(0, 5).map(lambda seconds: EVENING + timedelta(seconds=seconds, microseconds=seconds)),
)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Redis]:
    async with open_redis(settings) as redis:
        yield redis


async def fold(sink: RedisSink | MemorySink, changes: list[Change], batch: int, partition: int = 0) -> None:
    await sink.prepare()
    place = (await sink.checkpoint("positions", partition, LOG)).place
    for first in range(0, len(changes), batch):
        piece = changes[first : first + batch]
        await sink.apply(
            piece,
            expected=place._replace(offset=first),
            next_offset=first + len(piece),
            offsets=range(first, first + len(piece)),
        )


def answer(memory: MemorySink, viewer_id: str, video_id: str) -> Stopped | None:
    """The session that moved last, else the newest, with its newest position."""
    rows = [row for row in memory.rows("resume") if (row["viewer_id"], row["video_id"]) == (viewer_id, video_id)]
    if not rows:
        return None
    row = max(
        rows,
        key=lambda row: (row.get("moved_at") or datetime.min.replace(tzinfo=UTC), row["updated_at"], row["session_id"]),
    )
    return Stopped(*(row[name] for name in Stopped._fields))


@given(events=st.lists(updates, max_size=25), batch=st.integers(1, 25), shards=st.sampled_from([1, 3]))
@hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_answer_is_that_of_the_plain_fold(
    client: Redis, settings: Settings, events: list[PositionUpdated], batch: int, shards: int
) -> None:
    prefix = f"{settings.prefix}{next(numbers)}_"
    changes = [change for event in events for change in resume.fold(recorded([event]))]
    sink, memory = RedisSink(client, resume, prefix, shards=shards, limits=Limits(rows=3)), MemorySink(resume)
    await fold(sink, changes, batch)
    await fold(memory, changes, len(changes) or 1)
    # The rest of the log as one change, into a partition of its own, says nothing new.
    await fold(sink, list(resume.fold(recorded(events))), 1, partition=1)
    answers = Resume(client, prefix, Versions([Version(resume.name, resume.version, resume.version, shards, "active")]))
    for viewer_id in ("ann", "bob"):
        for video_id in ("heat", "alien"):
            assert await answers.position(viewer_id, video_id) == answer(memory, viewer_id, video_id)
    await sink.drop()


@pytest.mark.parametrize("rows", [1, 100])
async def test_a_key_of_a_wrong_type_refuses_the_changes_that_meet_it_and_nothing_moves(
    client: Redis, settings: Settings, rows: int
) -> None:
    sink = RedisSink(client, resume, settings.prefix, limits=Limits(rows=rows))
    await client.set(Keys(settings.prefix, "resume", resume.version).position("ann", "heat"), "in the way")
    await client.hset(Keys(settings.prefix, "resume", resume.version).state, "epoch", "begun")
    changes = [
        change
        for viewer_id in ("bob", "ann")
        for change in resume.fold(recorded([stopped(viewer_id, "heat", at="20:10", seconds=1)]))
    ]
    await sink.checkpoint("positions", 0, LOG)
    with pytest.raises(ChangeRefused, match="at:ann/heat") as refused:
        await sink.apply(changes, expected=Place("positions", 0, 0), next_offset=2)
    assert refused.value.changes == changes[1:]
    both = list(
        resume.fold(recorded([stopped(viewer_id, "heat", at="20:10", seconds=1) for viewer_id in ("bob", "ann")]))
    )
    with pytest.raises(ChangeRefused, match="at:ann/heat") as refused:
        await sink.apply(both, expected=Place("positions", 0, 0), next_offset=2)
    assert refused.value.changes == both
    assert (await sink.checkpoint("positions", 0, LOG)).next_offset == 0
    assert await Resume(client, settings.prefix, Versions()).position("bob", "heat") is None


async def test_nothing_in_redis_tells_of_a_forgotten_viewer_but_that_they_are(
    client: Redis, settings: Settings
) -> None:
    sink = RedisSink(client, resume, settings.prefix)
    for seconds, viewer_id in enumerate(["ann", "bob", "ann"]):
        changes = [
            change
            for video_id in ("heat", "alien")
            for change in resume.fold(recorded([stopped(viewer_id, video_id, at="20:10", seconds=seconds)]))
        ]
        await fold(sink, changes, 10, partition=seconds)
        if seconds == 0:
            await fold(sink, list(forget_viewer(forgotten("ann"))), 10, partition=7)
    found = [key.decode() async for key in client.scan_iter(match=f"{settings.prefix}*")]
    assert not [key for key in found if "ann" in key]
    assert await client.smembers(Keys(settings.prefix, "resume", resume.version).forgotten) == {b"ann"}
    assert await Resume(client, settings.prefix, Versions()).position("ann", "heat") is None
    assert await Resume(client, settings.prefix, Versions()).position("bob", "heat") is not None
