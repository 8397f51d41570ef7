"""The one promise of every sink: changes and checkpoint move in one step, or neither does."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agents.gathering import Gathering
from compose.settings import Settings
from projections.sinks.sink import ChangeRefused, CheckpointMoved, LogIdentity, Sink, Step, StoreUnavailable
from schemas.decoded import Decoded
from schemas.log import Place
from tests.contract.stores import STORES, RedisStore, Store, open_store

LOG = LogIdentity("cluster", "topic-id", 1_000)
NUMBERS = [0, 4, 1, 8, 12, 5, 3]
PLAIN = [0, 4, 1, 8, 12, 6, 3]  # nobody is forgotten: what forgets is written alone
END = 2 * len(NUMBERS)  # the offset after the last of them
BLOCKED_SECONDS = 0.3  # a second worker that a row lock holds up gets no further than this
MOST_STEPS = 100

SERVERS = {"postgres": "postgres", "redis": "redis", "elasticsearch": "elasticsearch"}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Store]:
    """Every store in turn, empty."""
    server = SERVERS.get(request.param.partition(" ")[0])
    if server:
        request.getfixturevalue(server)
    async with open_store(request.param, settings) as opened:
        yield opened


def topic_of(store: Store) -> str:
    return store.projection.topics[0]


async def place_of(store: Store, sink: Sink, partition: int = 0) -> Place:
    return (await sink.checkpoint(topic_of(store), partition, LOG)).place


async def apply(
    store: Store, sink: Sink, decoded: Sequence[Decoded], expected: Place, next_offset: int, step: str | None = None
) -> None:
    """One batch: the events that lie in [expected, next_offset)."""
    changes, offsets = [], []
    for item in decoded:
        offset = item.recorded.place.offset
        if expected.offset <= offset < next_offset:
            meant = list(store.projection.fold([item]))
            changes += meant
            offsets += [offset] * len(meant)
    await sink.apply(changes, expected=expected, next_offset=next_offset, offsets=offsets, step=step)


async def fold(store: Store, sink: Sink, decoded: Sequence[Decoded], to: int, batch: int = 100) -> None:
    """From the checkpoint to `to`, as a worker does that has just been given the partition."""
    place = await place_of(store, sink, decoded[0].recorded.place.partition)
    while place.offset < to:
        following = min(to, place.offset + batch)
        await apply(store, sink, decoded, place, following)
        place = place._replace(offset=following)


async def test_a_first_checkpoint_is_set_at_zero_and_stays(store: Store) -> None:
    first = await store.sink().checkpoint(topic_of(store), 0, LOG)
    again = await store.sink().checkpoint(topic_of(store), 0, LogIdentity("another", "log", 9))
    assert first == again
    assert first.place == Place(topic_of(store), 0, 0)


async def test_many_first_checkpoints_at_once_are_one(store: Store) -> None:
    found = await asyncio.gather(*(store.sink().checkpoint(topic_of(store), 1, LOG) for _ in range(6)))
    assert len(set(found)) == 1


async def test_many_workers_may_prepare_at_once(store: Store) -> None:
    await store.sink().drop()
    await asyncio.gather(*(store.sink().prepare() for _ in range(6)))
    assert (await place_of(store, store.sink())).offset == 0


async def test_a_batch_delivered_twice_counts_once(store: Store) -> None:
    decoded, sink = store.decoded(NUMBERS, 0), store.sink()
    place = await place_of(store, sink)
    await apply(store, sink, decoded, place, END)
    with pytest.raises(CheckpointMoved):
        await apply(store, sink, decoded, place, END)
    assert await store.state(0) == store.plainly(decoded)


async def test_a_stale_writer_writes_nothing(store: Store) -> None:
    decoded, stale, current = store.decoded(NUMBERS, 0), store.sink(), store.sink()
    place = await place_of(store, stale)
    await fold(store, current, decoded, 10)
    with pytest.raises(CheckpointMoved):
        await apply(store, stale, decoded, place, 6)
    assert await store.state(0) == store.plainly(decoded[:5])
    assert (await place_of(store, current)).offset == 10


async def test_a_gap_in_offsets_is_no_error(store: Store) -> None:
    decoded, sink = store.decoded(NUMBERS, 0)[:2], store.sink()
    place = await place_of(store, sink)
    await apply(store, sink, decoded, place, 1_000_000)
    with pytest.raises(CheckpointMoved):
        await apply(store, sink, decoded, place, 1_000_000)
    assert (await place_of(store, sink)).offset == 1_000_000
    assert await store.state(0) == store.plainly(decoded)


async def test_an_empty_batch_moves_the_checkpoint(store: Store) -> None:
    sink = store.sink()
    place = await place_of(store, sink)
    await sink.apply([], expected=place, next_offset=7, offsets=[])
    assert (await place_of(store, sink)).offset == 7


async def test_a_step_is_known_by_its_name_until_the_next_one_is_taken(store: Store) -> None:
    sink, at = store.sink(), (topic_of(store), 0)
    place = await place_of(store, sink)
    assert await sink.newest_step(*at) == Step(0, None)
    await sink.apply([], expected=place, next_offset=7, offsets=[], step="first")
    assert await store.sink().newest_step(*at) == Step(7, "first")
    with pytest.raises(CheckpointMoved):
        await sink.apply([], expected=place, next_offset=9, offsets=[], step="stale")
    assert await sink.newest_step(*at) == Step(7, "first")
    await sink.apply([], expected=place._replace(offset=7), next_offset=9, offsets=[])
    assert await sink.newest_step(*at) == Step(9, None)


async def test_wherever_the_line_is_cut_the_name_of_the_step_says_whether_it_was_taken(store: Store) -> None:
    gates = store.gates()
    for cut_at in range(MOST_STEPS):
        decoded, topic = store.decoded(NUMBERS, cut_at), topic_of(store)
        place = await place_of(store, store.sink(), cut_at)
        gates.passed, gates.cut_at = 0, cut_at
        with contextlib.suppress(StoreUnavailable):
            await apply(store, store.sink(gates), decoded, place, END, step="parks")
        was_cut = gates.passed > cut_at
        # Whoever comes next finishes what was begun before it asks.
        reached = (await place_of(store, store.sink(), cut_at)).offset
        newest = await store.sink().newest_step(topic, cut_at)
        assert newest == (Step(END, "parks") if reached else Step(0, None)), f"cut at gate {cut_at}"
        if not was_cut:
            return
    pytest.fail(f"a batch has more than {MOST_STEPS} steps")


async def test_partitions_have_checkpoints_of_their_own(store: Store) -> None:
    sink = store.sink()
    other = await place_of(store, sink, 2)
    await fold(store, sink, store.decoded(NUMBERS, 0), END)
    assert await place_of(store, sink, 2) == other


async def test_what_is_dropped_is_folded_anew_from_the_start(store: Store) -> None:
    decoded = store.decoded(NUMBERS, 0)
    await fold(store, store.sink(), decoded, END)
    await store.sink().drop()
    await store.sink().prepare()
    assert (await place_of(store, store.sink())).offset == 0
    await fold(store, store.sink(), decoded, END)
    assert await store.state(0) == store.plainly(decoded)


async def test_a_line_cut_between_any_two_steps_loses_nothing_and_counts_nothing_twice(store: Store) -> None:
    """Also after the last step, when all is written and only the answer is lost."""
    gates = store.gates()
    for cut_at in range(MOST_STEPS):
        decoded = store.decoded(NUMBERS, cut_at)
        gates.passed, gates.cut_at = 0, cut_at
        with contextlib.suppress(StoreUnavailable):
            await fold(store, store.sink(gates), decoded, END, batch=8)
        was_cut = gates.passed > cut_at
        await fold(store, store.sink(), decoded, END, batch=5)
        assert await store.state(cut_at) == store.plainly(decoded), f"cut at gate {cut_at}"
        if not was_cut:
            return
    pytest.fail(f"two batches have more than {MOST_STEPS} steps")


@pytest.mark.parametrize("store", [name for name in STORES if name != "memory"], indirect=True)
async def test_a_batch_whose_answer_was_lost_is_known_when_it_comes_again(store: Store) -> None:
    """All is written and acknowledged, and nobody hears it: the same batch is turned away, and the checkpoint tells why."""
    gates = store.gates()
    heard, unheard = store.decoded(NUMBERS, 1), store.decoded(NUMBERS, 0)
    await apply(store, store.sink(gates), heard, await place_of(store, store.sink(), 1), END)
    last = gates.passed - 1
    gates.passed, gates.cut_at = 0, last
    place, sink = await place_of(store, store.sink()), store.sink(gates)
    with pytest.raises(StoreUnavailable):
        await apply(store, sink, unheard, place, END)
    gates.cut_at = None
    with pytest.raises(CheckpointMoved):
        await apply(store, sink, unheard, place, END)
    assert (await place_of(store, sink)).offset == END
    assert await store.state(0) == store.plainly(unheard)


async def test_a_worker_thawed_between_any_two_steps_writes_nothing(store: Store) -> None:
    """It froze in the middle of a batch; another worker took its partition over, and folded it as far as it could."""
    gates = store.gates()
    for frozen_at in range(MOST_STEPS):
        decoded = store.decoded(NUMBERS, frozen_at)
        frozen, thaw = gates.freeze_at(frozen_at)
        zombie = asyncio.create_task(fold(store, store.sink(gates), decoded, 8))
        await first_of(frozen, zombie)
        was_frozen = frozen.is_set()
        heir = asyncio.create_task(fold(store, store.sink(), decoded, END, batch=9))
        # A row lock may hold the heir up until the zombie is done; then it finds the checkpoint moved and reads it again.
        await asyncio.wait([heir], timeout=BLOCKED_SECONDS)
        thaw.set()
        outcomes = await asyncio.gather(zombie, heir, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, CheckpointMoved) for outcome in outcomes), outcomes
        await fold(store, store.sink(), decoded, END)
        assert await store.state(frozen_at) == store.plainly(decoded), f"frozen at gate {frozen_at}"
        if not was_frozen:
            return
    pytest.fail(f"a batch has more than {MOST_STEPS} steps")


async def test_of_partitions_that_come_at_once_only_the_stale_one_is_turned_away(store: Store) -> None:
    sink, other = store.sink(), store.sink()
    decoded = {number: store.decoded(NUMBERS, number) for number in range(5)}
    places = {number: await place_of(store, sink, number) for number in decoded}
    await fold(store, other, decoded[3], 8)
    writing = [apply(store, sink, decoded[number], places[number], END) for number in decoded]
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 3 + [CheckpointMoved, type(None)]
    for number, records in decoded.items():
        assert await store.state(number) == store.plainly(records[: 4 if number == 3 else END])


async def test_a_line_cut_while_partitions_come_at_once_loses_nothing_and_counts_nothing_twice(store: Store) -> None:
    """A question passes a gate before and one after it: every third gate is, of every other question, the one or the other."""
    gates = store.gates()
    for cut_at in range(0, 3 * MOST_STEPS, 3):
        numbers = range(cut_at, cut_at + 3)
        decoded = {number: store.decoded(PLAIN, number) for number in numbers}
        places = {number: await place_of(store, store.sink(), number) for number in numbers}
        gates.passed, gates.cut_at = 0, cut_at
        sink = store.sink(gates)
        writing = [apply(store, sink, decoded[number], places[number], END) for number in numbers]
        outcomes = await asyncio.gather(*writing, return_exceptions=True)
        was_cut = gates.passed > cut_at
        assert all(outcome is None or isinstance(outcome, StoreUnavailable) for outcome in outcomes), outcomes
        assert was_cut or outcomes == [None] * 3
        for number in numbers:
            await fold(store, store.sink(), decoded[number], END, batch=5)
            assert await store.state(number) == store.plainly(decoded[number]), f"cut at gate {cut_at}"
        if not was_cut:
            return
    pytest.fail(f"three batches have more than {3 * MOST_STEPS} steps")


async def test_a_worker_thawed_while_its_partitions_came_at_once_writes_nothing(store: Store) -> None:
    """Each of them was taken over by another worker meanwhile."""
    gates = store.gates()
    for frozen_at in range(0, 3 * MOST_STEPS, 3):
        numbers = range(frozen_at, frozen_at + 3)
        decoded = {number: store.decoded(PLAIN, number) for number in numbers}
        places = {number: await place_of(store, store.sink(), number) for number in numbers}
        frozen, thaw = gates.freeze_at(frozen_at)
        stale = store.sink(gates)
        zombie = asyncio.gather(
            *(apply(store, stale, decoded[number], places[number], END) for number in numbers), return_exceptions=True
        )
        await first_of(frozen, zombie)
        was_frozen = frozen.is_set()
        heirs = [asyncio.create_task(fold(store, store.sink(), decoded[number], END, batch=9)) for number in numbers]
        await asyncio.wait(heirs, timeout=BLOCKED_SECONDS)
        thaw.set()
        outcomes = [*await zombie, *await asyncio.gather(*heirs, return_exceptions=True)]
        assert all(outcome is None or isinstance(outcome, CheckpointMoved) for outcome in outcomes), outcomes
        for number in numbers:
            await fold(store, store.sink(), decoded[number], END)
            assert await store.state(number) == store.plainly(decoded[number]), f"frozen at gate {frozen_at}"
        if not was_frozen:
            return
    pytest.fail(f"three batches have more than {3 * MOST_STEPS} steps")


async def test_what_is_gathered_while_the_line_is_cut_anywhere_counts_once(store: Store) -> None:
    gates = store.gates()
    for cut_at in range(MOST_STEPS):
        decoded = store.decoded(NUMBERS, cut_at)
        gates.passed, gates.cut_at = 0, cut_at
        with contextlib.suppress(StoreUnavailable):
            await gather(store, Gathering(store.sink(gates), most_records=6), decoded)
        was_cut = gates.passed > cut_at
        await gather(store, Gathering(store.sink()), decoded)
        assert await store.state(cut_at) == store.plainly(decoded), f"cut at gate {cut_at}"
        if not was_cut:
            return
    pytest.fail(f"folding has more than {MOST_STEPS} steps")


async def gather(store: Store, sink: Gathering, decoded: Sequence[Decoded]) -> None:
    """From the checkpoint to the end, two records at a time."""
    topic, partition = topic_of(store), decoded[0].recorded.place.partition
    for first in range((await place_of(store, sink, partition)).offset, END, 2):
        batch = [item for item in decoded if first <= item.recorded.place.offset < first + 2]
        changes = list(store.projection.fold(batch))
        await sink.apply(changes, expected=Place(topic, partition, first), next_offset=min(END, first + 2))
    await sink.write(topic, partition)


async def first_of(event: asyncio.Event, task: "asyncio.Future[Any]") -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


partitions = itertools.count()


class Turn(NamedTuple):
    """What one of two workers does: fold a batch from where it believes to be, or first read where that is, as after any start.

    Its line is cut at a gate that is passed while it does so, if there is one.
    """

    worker: int
    batch: int
    reads_checkpoint: bool
    cut_at: int | None


class Belief:
    """A worker with a line of its own; it stands where it last heard that it stood, however long ago."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gates = store.gates()
        self._sink = store.sink(self._gates)
        self._place: Place | None = None

    async def take(self, turn: Turn, decoded: Sequence[Decoded], end: int) -> None:
        partition = decoded[0].recorded.place.partition
        self._gates.passed, self._gates.cut_at = 0, turn.cut_at
        try:
            if self._place is None or turn.reads_checkpoint:
                self._place = await place_of(self._store, self._sink, partition)
            following = min(end, self._place.offset + turn.batch)
            await apply(self._store, self._sink, decoded, self._place, following)
            self._place = self._place._replace(offset=following)
        except CheckpointMoved:
            self._place = None
        except StoreUnavailable:
            # It hands in again what may have been written, or dies and begins anew.
            self._place = self._place if turn.batch % 2 else None


turns = st.builds(Turn, st.integers(0, 1), st.integers(1, 12), st.booleans(), st.one_of(st.none(), st.integers(0, 20)))


@hypothesis_settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(numbers=st.lists(st.integers(0, 59), min_size=1, max_size=20), course=st.lists(turns, max_size=12))
async def test_any_batching_by_any_worker_with_any_suffix_again_and_any_crash_gives_the_same(
    store: Store, numbers: list[int], course: list[Turn]
) -> None:
    partition, end = next(partitions), 2 * len(numbers)
    decoded = store.decoded(numbers, partition)
    workers = [Belief(store), Belief(store)]
    for turn in course:
        await workers[turn.worker].take(turn, decoded, end)
    await fold(store, store.sink(), decoded, end, batch=7)
    assert await store.state(partition) == store.plainly(decoded)


@pytest.fixture(params=[name for name in STORES if name.startswith("redis")])
async def redis_store(request: pytest.FixtureRequest, settings: Settings, redis: None) -> AsyncIterator[RedisStore]:
    async with open_store(request.param, settings) as opened:
        assert isinstance(opened, RedisStore)
        yield opened


@pytest.mark.parametrize("folded", [0, 6, END])
async def test_redis_emptied_or_restored_from_an_older_snapshot_is_folded_on_from_what_it_holds(
    redis_store: RedisStore, folded: int
) -> None:
    """Under a worker that goes on, and knows nothing of it. A snapshot of nothing is an emptied Redis."""
    store, decoded = redis_store, redis_store.decoded(NUMBERS, 0)
    worker = store.sink()
    snapshot: dict[bytes, bytes] = {}
    if folded:
        await fold(store, worker, decoded, folded, batch=3)
        snapshot = await store.snapshot()
    await fold(store, worker, decoded, END, batch=4)
    await store.restore(snapshot)
    if folded < END:
        with pytest.raises(CheckpointMoved):
            await worker.apply([], expected=Place(topic_of(store), 0, END), next_offset=END + 1)
    assert (await place_of(store, worker)).offset == folded
    await fold(store, worker, decoded, END, batch=5)
    assert await store.state(0) == store.plainly(decoded)


async def test_a_key_of_a_wrong_type_moves_nothing_and_is_no_more_once_it_is_gone(redis_store: RedisStore) -> None:
    """Whichever key of the state it is."""
    store, decoded = redis_store, redis_store.decoded(NUMBERS, 0)
    await fold(store, store.sink(), decoded, 8)
    held, contents, refused = await store.snapshot(), await store.contents(), []
    for key in held:
        await store.put_in_the_way(key)
        try:
            await fold(store, store.sink(), decoded, END)
        except (StoreUnavailable, ChangeRefused):
            refused.append(key)
            await store.take_out_of_the_way(key, held[key])
        else:  # what lies there has no part in this batch
            await store.restore(held)
        assert await store.contents() == contents, key
        assert (await place_of(store, store.sink())).offset == 8
    assert len(refused) > 2
    await fold(store, store.sink(), decoded, END)
    assert await store.state(0) == store.plainly(decoded)
