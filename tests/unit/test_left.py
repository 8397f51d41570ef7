"""What is folded anew in memory, up to any moment or any places, is what live workers had made of the same records and decisions."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import pytest

from agents.deciding import DISCARDED, FOLDED
from agents.handover import Partition
from agents.left import Left
from agents.replaying import Replay
from projections.catalogue import catalogue
from projections.counting import hour_start
from projections.projection import Projection
from projections.rule import Rule
from projections.sinks.memory import MemorySink
from projections.statistics import statistics
from schemas.log import Place
from schemas.streams import streams
from tests.logs import PartitionInMemory
from tests.unit.test_parking import World, live, settle

COURSES = 12
ONE = streams().model_copy(
    update={"topics": {name: topic.model_copy(update={"partitions": 1}) for name, topic in streams().topics.items()}}
)
SHORT = Rule(watched_at_least_seconds=30)


class Kind(NamedTuple):
    """A projection and one topic of its, and what happens there."""

    projection: Projection
    topic: str
    bad_share: float = 0.3
    discards_waiting: bool = True
    marked_share: float = 1.0


KINDS = {
    "in order, by one release": Kind(catalogue, "videos", bad_share=0.0),
    # Where a release with a bug reads what has waited, and somebody discards it just then, only its rows know which came first.
    "in order, by two releases": Kind(catalogue, "videos", discards_waiting=False),
    "views": Kind(statistics, "views"),
    "views retried by decisions alone": Kind(statistics, "views", marked_share=0.0),
    "views retried in either way": Kind(statistics, "views", marked_share=0.5),
    "views by a rule": Kind(statistics.at(2, SHORT), "views"),
}
each_course = pytest.mark.parametrize("seed", range(COURSES))
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class Seen(NamedTuple):
    """What live workers held at a moment, everything until then folded."""

    at: datetime
    state: Mapping[str, Any]
    places: list[Place]
    left: Left


async def seen_just_now(world: World) -> Seen:
    await world.fold_all(list(world.log))
    moment = world.now
    world.now += timedelta(milliseconds=1)
    left: Left = {world.home: {row.place.offset: row.decided_by for row in world.lot.parked}}
    return Seen(moment, rows_of(world.sink), [Place(*at, world.end(at)) for at in world.log], left)


@cache
def lived(kind: Kind, seed: int) -> tuple[World, list[Seen]]:
    """A course of events, looked at now and then, until everything that was parked is decided."""

    async def live_on() -> list[Seen]:
        seen = []
        for _ in range(2):
            await live(world)
            seen.append(await seen_just_now(world))
        await settle(world)
        return [*seen, await seen_just_now(world)]

    world = World(kind.projection, kind.topic, random.Random(seed))
    world.bad_share, world.discards_waiting, world.marked_share = (
        kind.bad_share,
        kind.discards_waiting,
        kind.marked_share,
    )
    return world, asyncio.run(live_on())


def replay_of(world: World) -> Replay:
    @asynccontextmanager
    async def open_log(partition: Partition) -> AsyncIterator[Any]:
        yield PartitionInMemory(partition, world.log.get(partition, []))

    return Replay(open_log, ONE)


def rows_of(sink: MemorySink) -> Mapping[str, Any]:
    return {table: sink.rows(table) for table in ("videos", "hourly", "daily")}


@each_kind
@each_course
def test_the_past_knows_of_no_decision_that_was_not_taken_by_then(kind: Kind, seed: int) -> None:
    world, seen = lived(kind, seed)

    async def as_of(moment: datetime) -> Mapping[str, Any]:
        sink, replay = MemorySink(kind.projection), replay_of(world)
        spans = await replay.spans_until([kind.topic], moment)
        await replay.fold(kind.projection, spans, sink.write, recorded_by=moment)
        return rows_of(sink)

    for then in seen:
        assert asyncio.run(as_of(then.at)) == then.state


@each_kind
@each_course
def test_what_a_version_holds_is_found_again_at_its_places_whatever_has_been_decided_since(
    kind: Kind, seed: int
) -> None:
    world, seen = lived(kind, seed)

    async def up_to(places: list[Place], left: Left) -> Mapping[str, Any]:
        sink, replay = MemorySink(kind.projection), replay_of(world)
        await replay.fold(kind.projection, await replay.spans_to(places), sink.write, left=left)
        return rows_of(sink)

    for then in seen:
        # Perhaps read a little later than the places.
        for left in (then.left, seen[-1].left):
            assert asyncio.run(up_to(then.places, left)) == then.state


@each_kind
@each_course
def test_a_window_counts_as_the_whole_log_does_though_it_reads_only_the_end_of_it(kind: Kind, seed: int) -> None:
    world, seen = lived(kind, seed)

    async def hours(then: Seen, left: Left | None, from_: datetime, *, is_all: bool) -> list[Mapping[str, Any]]:
        sink, replay = MemorySink(kind.projection), replay_of(world)
        since = None if is_all else from_
        if left is None:
            spans = await replay.spans_until([kind.topic], then.at, occurred_from=since)
        else:
            spans = await replay.spans_to(then.places, occurred_from=since)
        at = then.at if left is None else None
        await replay.fold(kind.projection, spans, sink.write, recorded_by=at, left=left)
        return [row for row in sink.rows("hourly") if row["start"] >= from_]

    for then in seen:
        from_ = hour_start(then.at - timedelta(hours=seed % 7))
        for left in (None, then.left):
            found, expected = (asyncio.run(hours(then, left, from_, is_all=is_all)) for is_all in (False, True))
            assert found == expected


def test_the_courses_have_records_that_are_retried_discarded_and_wait() -> None:
    for kind in KINDS.values():
        worlds = [lived(kind, seed) for seed in range(COURSES)]
        outcomes = {row.outcome for world, _ in worlds for row in world.lot.parked}
        assert {FOLDED, DISCARDED} <= outcomes
        assert any(
            at is None for _, seen in worlds for then in seen for at in then.left[Partition(kind.topic, 0)].values()
        )
