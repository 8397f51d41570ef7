"""What is parked, decided and folded again means what the log and its decisions mean, whoever folds it and wherever they die."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from agents.deciding import DISCARDED, DUPLICATE, FOLDED, FUTURE, WITHOUT_EFFECT
from agents.decisions import HOME as DECISIONS_HOME
from agents.decisions import DecisionsOfWorker
from agents.folding import Folding
from agents.handover import Batch, Partition
from agents.limits import Halted
from agents.parking import WAITS_BEHIND, NotYet
from agents.ruling import View, mark
from agents.seen import SeenIdsOfWorker
from projections.catalogue import catalogue
from projections.changes import Change, singly
from projections.leaderboard import leaderboard
from projections.projection import Projection
from projections.sinks.memory import MemorySink
from projections.sinks.sink import ChangeRefused, CheckpointMoved, LogIdentity
from projections.statistics import statistics
from schemas.envelope import decode, encode
from schemas.events import Event, RecordDiscarded, RecordRetried, RecordRetriedInPlace, ViewRetried
from schemas.log import Place, moment_of
from schemas.streams import streams
from tests.given import EVENING, announced, deleted, failed, progressed, rows_after, transcoded, uploaded, viewed
from tests.logs import PartitionInMemory
from tests.parking_lot import Lot
from tests.records import Kept, kept

LOG = LogIdentity("cluster", "topic", 1)
WITHIN = streams().topics["views"].once_within or timedelta()
DECIDED_OTHERWISE = (DISCARDED, WITHOUT_EFFECT)
BAD = 3  # partitions that a release with a bug believes in: two keys of three it takes for strays
COURSES = 60


class Dies(BaseException):
    """A worker dies here."""


class FrailSink(MemorySink):
    """Now and then whoever applies dies, before or after. It outlives them. It may take nothing of a film for a while."""

    def __init__(self, projection: Projection, chance: random.Random) -> None:
        super().__init__(projection)
        self.chance = chance
        self.frailty = 0.0
        self.refused_film = ""
        self.save()

    def save(self) -> None:
        """What a snapshot holds from now on."""
        self.saved = deepcopy((self._tables, self._forgotten, self._checkpoints, self._steps))

    def restore(self) -> None:
        """Nothing since then was ever written."""
        self._tables, self._forgotten, self._checkpoints, self._steps = deepcopy(self.saved)

    def steps_at(self, partition: Partition) -> int:
        found = self._checkpoints.get(partition)
        return found.next_offset if found else 0

    async def apply(self, changes: Sequence[Change], **more: Any) -> None:
        await self._perhaps_die()
        if self.refused_film and self.refused_film in str(list(singly(changes))):
            raise ChangeRefused(self._projection.name, changes, "the column is too narrow")
        await super().apply(changes, **more)
        await self._perhaps_die()

    async def _perhaps_die(self) -> None:
        await asyncio.sleep(0)
        if self.chance.random() < self.frailty:
            raise Dies


class World:
    """A partition of `topic` and the decisions about it, one projection's state and parking, and workers that come and go."""

    bad_share = 0.3  # of the workers, those of a release with a bug
    discards_waiting = True
    is_restored = False  # now and then, from a snapshot
    marked_share = 1.0  # of the retries of views; the others are decisions as they were before there were marks

    def __init__(self, projection: Projection, topic: str, chance: random.Random) -> None:
        self.projection, self.chance = projection, chance
        self.home = Partition(topic, 0)
        self.log: dict[Partition, list[Kept]] = {self.home: [], DECISIONS_HOME: []}
        self.now = EVENING
        # A view that is retried is hardly ever sent again within hours where they pass fast.
        self.pause_minutes = chance.choice((10, 90))
        self.start_anew()

    def start_anew(self) -> None:
        """Nothing is left but the log."""
        self.sink, self.lot = FrailSink(self.projection, self.chance), Lot()

    def perhaps_restore(self) -> None:
        if self.is_restored and self.chance.random() < 0.3:
            self.chance.choice((self.sink.save, self.sink.restore))()

    def append(self, event: Event, *, value: bytes | None = None) -> Place:
        # Another world may append to the same log.
        newest = (moment_of(records[-1].timestamp) for records in self.log.values() if records)
        self.now = max([self.now, *newest]) + timedelta(minutes=self.chance.randint(0, self.pause_minutes))
        at = DECISIONS_HOME if event.topic == "decisions" else self.home
        message = encode(event, event_id="e", source="/tests")
        if value is not None:
            message = message._replace(value=value)
        offset = self.log[at][-1].offset + self.chance.choice((1, 1, 1, 2)) if self.log[at] else 0
        stamp = round(self.now.timestamp() * 1_000)
        self.log[at].append(kept(message, partition=0, offset=offset, timestamp=stamp))
        return Place(*at, offset)

    def end(self, at: Partition) -> int:
        return self.log[at][-1].offset + 1 if self.log[at] else 0

    def worker(self, *, is_bad: bool = False, beside: "Worker | None" = None) -> "Worker":
        return Worker(self, {self.home.topic: BAD if is_bad else 1, "decisions": 1}, beside)

    async def fold_all(self, at: Sequence[Partition]) -> None:
        """To the end, by workers that do not die, into a store that takes everything."""
        self.sink.frailty, self.sink.refused_film = 0.0, ""
        for one in at:
            newest = await self.sink.newest_step(*one)
            await self.lot.settle(Place(*one, newest.next_offset), newest)
        worker = self.worker()
        for _ in range(10_000):
            if all([await worker.is_at_end(one) for one in at]):
                return
            for one in at:
                await worker.step(one)
        raise AssertionError("the decisions are never reached")

    def is_on_its_way(self, place: Place) -> bool:
        """Whether a decision about it, or one that may let it follow where it waits, is in the log and not carried out: the command does
        not append another."""
        may_follow = self.lot.rows[place].reason == WAITS_BEHIND
        if any(row.place == place for step in self.lot.steps.values() for row in step.rows):
            return True
        checkpoint = self.sink.steps_at(DECISIONS_HOME)
        marks = (event_of(row.record, self.home) for row in self.lot.parked if is_mark(row.record))
        carried_out = {mark.decision for mark in marks}
        for record in self.log[DECISIONS_HOME]:
            decision = event_of(record, DECISIONS_HOME)
            is_marked = isinstance(decision, RecordRetriedInPlace)
            is_open = record.offset not in carried_out if is_marked else record.offset >= checkpoint
            if is_open and self.projection.name in decision.projections and (may_follow or decision.record == place.id):
                return True
        return False

    @property
    def undecided(self) -> list[Place]:
        return [row.place for row in self.lot.parked if row.outcome is None]


class Worker:
    """One process, with what it remembers; the seen ids are those of `beside`, who folds another projection in it, if given."""

    def __init__(self, world: World, partitions: dict[str, int], beside: "Worker | None" = None) -> None:
        self.world = world

        @asynccontextmanager
        async def open_log(partition: Partition) -> Any:
            yield PartitionInMemory(partition, world.log[partition])

        self.seen = beside.seen if beside else SeenIdsOfWorker({"views": WITHIN}, partitions, open_log)  # type: ignore[arg-type]
        decisions = DecisionsOfWorker(open_log, partitions)  # type: ignore[arg-type]
        self.folding = Folding(world.projection, world.sink, world.lot, self.seen, partitions, decisions)  # type: ignore[arg-type]
        self.epochs: Counter[Partition] = Counter()
        self.waiting: dict[Partition, int] = {}

    async def step(self, at: Partition) -> None:
        """The next batch of `at`; what a reader would see and begin anew after makes a new epoch."""
        start = (await self.world.sink.checkpoint(*at, LOG)).next_offset
        following = min(self.world.end(at), start + self.world.chance.randint(1, 9))
        if start < self.waiting.get(at, 0):
            following = self.waiting[at]
        if following <= start:
            return
        records = [record for record in self.world.log[at] if start <= record.offset < following]
        self.waiting.pop(at, None)
        try:
            await self.folding.fold(Batch(self.epochs[at], at, start, following, records))
        except NotYet:
            # It is not read otherwise then.
            self.waiting[at] = following
            self.epochs[at] += 1
        except (CheckpointMoved, Halted):
            self.epochs[at] += 1

    async def is_at_end(self, at: Partition) -> bool:
        return (await self.world.sink.checkpoint(*at, LOG)).next_offset == self.world.end(at)


def some_life(world: World) -> None:
    """Events, some of them poison for ever, and decisions."""
    chance = world.chance
    for _ in range(chance.randint(1, 6)):
        if world.home.topic == "views":
            event: Event = viewed(chance.choice(("heat", "ran")), f"view-{chance.randint(0, 9)}", at="20:00")
            # Some are from the future.
            occurred_at = world.now + timedelta(hours=2 if chance.random() < 0.1 else 0)
            update = {"watched_seconds": chance.choice((5.0, 50.0)), "occurred_at": occurred_at}
            event = event.model_copy(update=update)
        else:
            film, number = f"film-{chance.randint(0, 3)}", chance.randint(0, 9)
            event = chance.choice(
                (announced(film, f"Film {number}"), uploaded(film), progressed(film, number / 10, claim=number + 1),
                 transcoded(film, claim=number + 1), failed(film, f"No {number}", claim=number + 1), deleted(film))
            )  # fmt: skip
        world.append(event, value=b"no json" if chance.random() < 0.15 else None)
    decide_some(world)


def decide_some(world: World) -> None:
    """Decisions about what is parked just now."""
    chance = world.chance
    for place in world.undecided:
        if chance.random() < 0.3 and not world.is_on_its_way(place):
            decide(world, place, discard=chance.random() < 0.4)


def decide(world: World, place: Place, *, discard: bool) -> None:
    """As the command does: what only waits is not retried, nor is a retry."""
    discard = discard or is_mark(world.lot.rows[place].record)
    if world.lot.rows[place].reason == WAITS_BEHIND and not (discard and world.discards_waiting):
        return
    fields: dict[str, Any] = {
        "record": place.id,
        "projections": [world.projection.name],
        "by": "ops",
        "occurred_at": EVENING,
        "parked_for": world.lot.rows[place].reason,
    }
    if discard:
        world.append(RecordDiscarded(why="no event", **fields))
    elif world.home.topic != "views" or world.chance.random() >= world.marked_share:
        world.append(RecordRetried(judged_to=world.end(world.home), **fields))
    else:
        record = world.lot.rows[place].record
        retried = RecordRetriedInPlace(judged_to=world.end(world.home), **fields)
        at = world.append(retried)
        assert record.key is not None
        world.append(mark(retried, at.offset, View(record.key.decode(), moment_of(record.timestamp))))


async def live(world: World) -> None:
    """Workers of a good and a bad release fold the partition and the decisions side by side, and die wherever they do."""
    chance = world.chance
    for _ in range(chance.randint(3, 12)):
        some_life(world)
        world.sink.frailty = chance.choice((0.0, 0.1, 0.3))
        world.perhaps_restore()
        workers = [world.worker(is_bad=chance.random() < world.bad_share), world.worker()]
        tasks = [work(chance.choice(workers), at, chance.randint(1, 6)) for at in world.log]
        await asyncio.gather(*tasks)


async def work(worker: Worker, at: Partition, steps: int) -> None:
    with suppress(Dies):
        for _ in range(steps):
            await worker.step(at)


async def settle(world: World) -> None:
    """Decide about everything, and fold it all."""
    for round_number in range(50):
        await world.fold_all(list(world.log))
        if not world.undecided:
            return
        for place in world.undecided:
            is_poison = world.lot.rows[place].record.value == b"no json"
            decide(world, place, discard=is_poison or round_number > 40)
    raise AssertionError(f"never decided: {world.lot.parked}")


def marked_share(seed: int) -> float:
    """A log of old has no marks, and means what it meant; another may begin as one."""
    return (0.0, 0.5, 1.0, 1.0)[seed % 4]


def state(world: World) -> Mapping[str, Any]:
    return {table: world.sink.rows(table) for table in ("videos", "hourly", "daily")}


@pytest.mark.parametrize("seed", range(COURSES))
async def test_a_films_events_are_folded_once_and_in_order_whatever_was_parked_and_wherever_workers_die(
    seed: int,
) -> None:
    world = World(catalogue, "videos", random.Random(seed))
    world.is_restored = seed % 3 == 0
    await live(world)
    await settle(world)
    discarded = {row.place.offset for row in world.lot.parked if row.outcome == DISCARDED}
    events = [event_of(record, world.home) for record in world.log[world.home] if record.offset not in discarded]
    assert world.sink.rows("videos") == rows_after(catalogue, events, "videos")


@pytest.mark.parametrize("seed", range(COURSES))
async def test_views_count_by_the_rule_of_the_log_whatever_was_parked_and_wherever_workers_die(seed: int) -> None:
    world = World(statistics, "views", random.Random(seed))
    world.marked_share, world.is_restored = marked_share(seed), seed % 3 == 0
    await live(world)
    await settle(world)
    assert shown(world) == what_counts(world)


@pytest.mark.parametrize(("projection", "topic"), [(catalogue, "videos"), (statistics, "views")], ids=str)
@pytest.mark.parametrize("seed", range(COURSES // 3))
async def test_a_log_folded_anew_ends_where_live_did(projection: Projection, topic: str, seed: int) -> None:
    world = World(projection, topic, random.Random(seed))
    world.marked_share = marked_share(seed)
    await live(world)
    await settle(world)
    lived, outcomes = state(world), {row.place: row.outcome for row in world.lot.parked}
    world.start_anew()
    await world.fold_all(list(world.log))
    assert state(world) == lived
    # What had only waited may be folded at its place this time.
    again = {row.place: row.outcome for row in world.lot.parked}
    assert {place: again.get(place, FOLDED) for place in outcomes} == outcomes


@pytest.mark.parametrize("seed", range(COURSES))
async def test_views_count_by_the_rule_in_each_of_two_projections_that_share_seen_ids_whatever_one_store_refused(
    seed: int,
) -> None:
    chance = random.Random(seed)
    worlds = [World(statistics, "views", chance), World(leaderboard, "views", chance)]
    worlds[1].log = worlds[0].log
    for world in worlds:
        world.marked_share, world.is_restored = marked_share(seed), seed % 3 == 0
    for _ in range(chance.randint(3, 12)):
        some_life(worlds[0])
        decide_some(worlds[1])
        for world in worlds:
            world.sink.frailty = chance.choice((0.0, 0.1, 0.3))
            world.sink.refused_film = chance.choice(("", "", "heat", "ran"))
            world.perhaps_restore()
        await side_by_side(worlds, is_bad=chance.random() < worlds[0].bad_share, steps=6)
    for world in worlds:
        await settle(world)
    assert [shown(world) for world in worlds] == [what_counts(world) for world in worlds]
    for world in worlds:
        world.start_anew()
    await side_by_side(worlds, is_bad=False, steps=20)
    for world in worlds:
        await world.fold_all(list(world.log))
    assert [shown(world) for world in worlds] == [what_counts(world) for world in worlds]


async def test_a_retry_in_vain_leaves_its_id_to_the_view_that_is_sent_again_as_it_should_be() -> None:
    world = World(statistics, "views", random.Random(0))
    world.pause_minutes = 1
    worker = world.worker()

    async def fold() -> None:
        while not await worker.is_at_end(world.home):
            await worker.step(world.home)

    spoilt = world.append(viewed("heat", "view-1", at="20:00"), value=b"no json")
    world.append(viewed("ran", "view-2", at="20:00"))
    await fold()
    decide(world, spoilt, discard=False)
    await fold()
    world.append(viewed("heat", "view-1", at="20:00"))
    await fold()
    assert shown(world) == {"heat": 1, "ran": 1}


async def test_what_is_open_again_after_a_store_was_restored_holds_later_events_of_its_film_back() -> None:
    world = World(catalogue, "videos", random.Random(0))
    first = world.append(announced("heat", "Heat"))
    bad = world.worker(is_bad=True)
    while not await bad.is_at_end(world.home):
        await bad.step(world.home)
    assert world.undecided == [first]
    world.sink.save()
    decide(world, first, discard=False)
    await world.fold_all(list(world.log))
    world.append(announced("heat", "Heat, the director's cut"))
    world.sink.restore()
    # The decision is read after the film's next event.
    await world.fold_all([world.home, DECISIONS_HOME])
    assert [row["title"] for row in world.sink.rows("videos")] == ["Heat, the director's cut"]


async def test_a_sink_that_needs_to_know_is_told_where_each_retry_lies_and_has_each_in_a_step_of_its_own() -> None:
    class Told(FrailSink):
        needs_offsets = True

        def __init__(self, chance: random.Random) -> None:
            super().__init__(statistics, chance)
            self.told: list[tuple[int, set[int]]] = []

        async def apply(self, changes: Sequence[Change], **more: Any) -> None:
            self.told.append((more["next_offset"] - 1, set(more["offsets"])))
            await super().apply(changes, **more)

    world = World(statistics, "views", random.Random(1))
    world.sink = sink = Told(world.chance)

    async def fold(worker: Worker) -> None:
        while not await worker.is_at_end(world.home):
            await worker.step(world.home)

    for number in range(9):
        world.append(viewed("heat", f"view-{number}", at="20:00"))
    await fold(world.worker(is_bad=True))
    for place in world.undecided:
        decide(world, place, discard=False)
    await fold(world.worker())
    marks = [record.offset for record in world.log[world.home] if is_mark(record)]
    assert [one for one in sink.told if one[0] in marks] == [(mark, {mark}) for mark in marks]
    assert shown(world) == {"heat": 9}


async def side_by_side(worlds: Sequence[World], *, is_bad: bool, steps: int) -> None:
    """A process, or two that know nothing of each other, folds a projection of each world, and may die at each partition."""
    chance = worlds[0].chance
    works = []
    for _ in range(chance.choice((1, 2))):
        first = worlds[0].worker(is_bad=is_bad)
        workers = [first, *(world.worker(is_bad=is_bad, beside=first) for world in worlds[1:])]
        works += [work(worker, at, chance.randint(1, steps)) for worker in workers for at in worker.world.log]
    chance.shuffle(works)
    await asyncio.gather(*works)


def shown(world: World) -> Counter[str]:
    """How often each film counts, as its projection has it."""
    counted: Counter[str] = Counter()
    for row in world.sink.rows("daily" if world.projection is statistics else "views"):
        counted[row["video_id"]] += row["views"]
    return counted


def is_mark(record: Any) -> bool:
    return ("ce_type", ViewRetried.type.encode()) in record.headers


def event_of(record: Kept, at: Partition) -> Any:
    return decode(record, at.topic).event


class Taken(NamedTuple):
    """An id, as of when it was recorded, where; and from which offset on it is known to views."""

    view_id: str
    offset: int
    at_ms: int
    known_from: int


def what_counts(world: World) -> Counter[str]:
    """The rule told plainly: views take their ids at their places, retried ones by one decision after the other."""
    parked = {row.place.offset: row for row in world.lot.parked if row.place.topic == "views"}
    events = {r.offset: (r.timestamp, event_of(r, world.home)) for r in world.log[world.home] if r.value != b"no json"}
    views = {offset: one for offset, one in events.items() if not isinstance(one[1], ViewRetried)}
    honest = {o: one for o, one in views.items() if one[1].occurred_at.timestamp() - one[0] / 1_000 <= 60}
    at_places = [Taken(v.key, o, at_ms, o + 1) for o, (at_ms, v) in honest.items() if o not in parked]
    counted: Counter[str] = Counter()
    by_marks: list[Taken] = []
    by_decisions: list[tuple[Taken, bool]] = []
    retried = (row for row in parked.values() if row.decided_by is not None and row.outcome not in DECIDED_OTHERWISE)
    for row in sorted(retried, key=lambda row: row.decided_by or 0):
        offset = row.place.offset
        if offset not in honest:
            assert row.outcome == FUTURE
            continue
        at_ms, view = honest[offset]
        decision = next(r for r in world.log[DECISIONS_HOME] if r.offset == row.decided_by)
        judged_to = event_of(decision, DECISIONS_HOME).judged_to if row.mark is None else row.mark
        known = [one for one in at_places if one.offset < judged_to] + by_marks
        # Of two that were retried by decisions without marks, one that is a duplicate is unknown to the other.
        known += [one for one, counts in by_decisions if counts or row.mark is not None]
        counts = not any(one.view_id == view.key and near(one.at_ms, at_ms) for one in known)
        assert row.outcome == (FOLDED if counts else DUPLICATE)
        counted[view.video_id] += counts
        if row.mark is None:
            by_decisions.append((Taken(view.key, offset, at_ms, 0), counts))
        else:
            by_marks.append(Taken(view.key, offset, at_ms, row.mark))
    for offset, (at_ms, view) in honest.items():
        known = [one for one in at_places + by_marks if one.known_from <= offset]
        if offset not in parked:
            counted[view.video_id] += not any(one.view_id == view.key and near(one.at_ms, at_ms) for one in known)
    return +counted


def near(one_ms: int, other_ms: int) -> bool:
    return abs(one_ms - other_ms) <= WITHIN.total_seconds() * 1_000
