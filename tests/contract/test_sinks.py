"""The one promise of every sink: changes and checkpoint move in one step, or neither does."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from compose.settings import Settings
from projections.sinks.sink import CheckpointMoved, LogIdentity, Sink, Step, StoreUnavailable
from schemas.envelope import Decoded
from schemas.log import Place
from tests.contract.stores import STORES, Store, open_store

LOG = LogIdentity("cluster", "topic-id", 1_000)
NUMBERS = [0, 4, 1, 8, 12, 5, 3]
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
    await apply(store, sink, decoded, place, 1_000)
    assert (await place_of(store, sink)).offset == 1_000
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


async def test_a_worker_thawed_between_any_two_steps_writes_nothing(store: Store) -> None:
    """It froze in the middle of a batch; another worker took its partition over, and folded it as far as it could."""
    gates = store.gates()
    for frozen_at in range(MOST_STEPS):
        decoded = store.decoded(NUMBERS, frozen_at)
        frozen, thaw = asyncio.Event(), asyncio.Event()

        async def hold(
            number: int, at: int = frozen_at, froze: asyncio.Event = frozen, thawed: asyncio.Event = thaw
        ) -> None:
            if number == at:
                froze.set()
                await thawed.wait()

        gates.passed, gates.hold = 0, hold
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


async def first_of(event: asyncio.Event, task: "asyncio.Task[Any]") -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


partitions = itertools.count()


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    numbers=st.lists(st.integers(0, 59), min_size=1, max_size=20),
    batches=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    redelivered=st.sets(st.integers(2, 6), max_size=3),
)
async def test_any_batching_with_any_batch_delivered_again_gives_the_same(
    store: Store, numbers: list[int], batches: list[int], redelivered: set[int]
) -> None:
    partition = next(partitions)
    decoded, end, sink = store.decoded(numbers, partition), 2 * len(numbers), store.sink()
    place, folded = await place_of(store, sink, partition), [0]
    while place.offset < end:
        following = min(end, place.offset + batches[len(folded) % len(batches)])
        await apply(store, sink, decoded, place, following)
        place = place._replace(offset=following)
        folded.append(following)
        if len(folded) in redelivered:
            with pytest.raises(CheckpointMoved):
                await apply(store, sink, decoded, place._replace(offset=folded[-2]), following)
    assert await store.state(partition) == store.plainly(decoded)
