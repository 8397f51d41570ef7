"""The one promise of every sink: changes and checkpoint move in one step, or neither does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from compose.settings import Settings
from projections.sinks.sink import CheckpointMoved, LogIdentity, Sink, StoreUnavailable
from schemas.envelope import Decoded
from schemas.log import Place
from tests.contract.stores import NOW, STORES, Store, open_store

LOG = LogIdentity("cluster", "topic-id", 3)
NUMBERS = [0, 4, 1, 8, 2, 5, 12, 3, 7, 6, 1, 9]
BLOCKED_SECONDS = 1.0  # a second worker that a row lock holds up gets no further than this

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


async def place_of(store: Store, sink: Sink) -> Place:
    return (await sink.checkpoint(topic_of(store), 0, LOG)).place


async def apply(store: Store, sink: Sink, decoded: Sequence[Decoded], expected: Place, next_offset: int) -> None:
    """One batch: the events that lie in [expected, next_offset)."""
    changes, offsets = [], []
    for item in decoded:
        offset = item.recorded.place.offset
        if expected.offset <= offset < next_offset:
            meant = list(store.projection.fold([item]))
            changes += meant
            offsets += [offset] * len(meant)
    await sink.apply(changes, expected=expected, next_offset=next_offset, offsets=offsets)


async def fold(store: Store, sink: Sink, decoded: Sequence[Decoded], to: int, batch: int = 100) -> None:
    """From the checkpoint to `to`, as a worker does that has just been given the partition."""
    place = await place_of(store, sink)
    while place.offset < to:
        following = min(to, place.offset + batch)
        await apply(store, sink, decoded, place, following)
        place = place._replace(offset=following)


async def expected_state(store: Store, settings: Settings, decoded: Sequence[Decoded], to: int) -> Any:
    """What one sink holds that folded everything at once and undisturbed."""
    undisturbed = settings.model_copy(update={"prefix": f"{settings.prefix}plain_"})
    async with open_store(store.name, undisturbed) as plain:
        await fold(plain, plain.sink(), decoded, to)
        return await plain.state()


async def test_a_first_checkpoint_is_set_at_zero_and_stays(store: Store) -> None:
    first = await store.sink().checkpoint(topic_of(store), 0, LOG)
    again = await store.sink().checkpoint(topic_of(store), 0, LogIdentity("another", "log", 9))
    assert first == again
    assert first.place == Place(topic_of(store), 0, 0)


async def test_many_first_checkpoints_at_once_are_one(store: Store) -> None:
    found = await asyncio.gather(*(store.sink().checkpoint(topic_of(store), 1, LOG) for _ in range(6)))
    assert len(set(found)) == 1


async def test_a_batch_delivered_twice_counts_once(store: Store) -> None:
    decoded, sink = store.decoded(NUMBERS), store.sink()
    place = await place_of(store, sink)
    await apply(store, sink, decoded, place, 24)
    before = await store.state()
    with pytest.raises(CheckpointMoved):
        await apply(store, sink, decoded, place, 24)
    assert await store.state() == before


async def test_a_stale_writer_writes_nothing(store: Store) -> None:
    decoded, stale, current = store.decoded(NUMBERS), store.sink(), store.sink()
    place = await place_of(store, stale)
    await fold(store, current, decoded, 10)
    before = await store.state()
    with pytest.raises(CheckpointMoved):
        await apply(store, stale, decoded, place, 6)
    assert await store.state() == before
    assert (await place_of(store, current)).offset == 10


async def test_a_gap_in_offsets_is_no_error(store: Store, settings: Settings) -> None:
    decoded, sink = store.decoded(NUMBERS), store.sink()
    place = await place_of(store, sink)
    await apply(store, sink, decoded[:2], place, 1_000)
    assert (await place_of(store, sink)).offset == 1_000
    assert await store.state() == await expected_state(store, settings, decoded[:2], 4)


async def test_an_empty_batch_moves_the_checkpoint(store: Store) -> None:
    sink = store.sink()
    place = await place_of(store, sink)
    await sink.apply([], expected=place, next_offset=7, offsets=[])
    assert (await place_of(store, sink)).offset == 7


async def test_partitions_have_checkpoints_of_their_own(store: Store) -> None:
    sink = store.sink()
    other = (await sink.checkpoint(topic_of(store), 2, LOG)).place
    await fold(store, sink, store.decoded(NUMBERS), 24)
    assert (await sink.checkpoint(topic_of(store), 2, LOG)).place == other


async def test_a_line_cut_between_any_two_steps_loses_nothing_and_counts_nothing_twice(
    store: Store, settings: Settings
) -> None:
    """Also after the last step, when all is written and only the answer is lost."""
    decoded = store.decoded(NUMBERS)
    expected = await expected_state(store, settings, decoded, 24)
    gates = store.gates()
    for cut_at in range(100):
        sink = store.sink(gates)
        gates.passed, gates.cut_at = 0, cut_at
        with contextlib.suppress(StoreUnavailable):
            await fold(store, sink, decoded, 24, batch=10)
        was_cut = gates.passed > cut_at
        await fold(store, store.sink(), decoded, 24, batch=7)
        assert await store.state() == expected, f"cut at gate {cut_at}"
        if not was_cut:
            return
        await store.sink().drop()
        await store.sink().prepare()
        await begin(store)
    pytest.fail("a batch has more than a hundred steps")


async def begin(store: Store) -> None:
    """A board wants its first tick before its first batch."""
    await store.sink().tick(NOW)


async def test_a_worker_thawed_between_any_two_steps_writes_nothing(store: Store, settings: Settings) -> None:
    """It froze in the middle of a batch; another worker took its partition over, and folded it as far as it could."""
    decoded = store.decoded(NUMBERS)
    expected = await expected_state(store, settings, decoded, 24)
    gates = store.gates()
    for frozen_at in range(100):
        frozen, thaw = asyncio.Event(), asyncio.Event()

        async def hold(
            number: int, at: int = frozen_at, froze: asyncio.Event = frozen, thawed: asyncio.Event = thaw
        ) -> None:
            if number == at:
                froze.set()
                await thawed.wait()

        gates.passed, gates.hold = 0, hold
        zombie = asyncio.create_task(fold(store, store.sink(gates), decoded, 14))
        await first_of(frozen, zombie)
        was_frozen = frozen.is_set()
        heir = asyncio.create_task(fold(store, store.sink(), decoded, 24, batch=9))
        # A row lock may hold the heir up until the zombie is done; then it finds the checkpoint moved and reads it again.
        await asyncio.wait([heir], timeout=BLOCKED_SECONDS)
        thaw.set()
        outcomes = await asyncio.gather(zombie, heir, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, CheckpointMoved) for outcome in outcomes), outcomes
        await fold(store, store.sink(), decoded, 24)
        assert await store.state() == expected, f"frozen at gate {frozen_at}"
        if not was_frozen:
            return
        await store.sink().drop()
        await store.sink().prepare()
        await begin(store)
    pytest.fail("a batch has more than a hundred steps")


async def first_of(event: asyncio.Event, task: "asyncio.Task[Any]") -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    numbers=st.lists(st.integers(0, 59), min_size=1, max_size=20),
    batches=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    redelivered=st.lists(st.integers(0, 20), max_size=4),
)
async def test_any_batching_with_any_batch_delivered_again_gives_the_same(
    store: Store, settings: Settings, numbers: list[int], batches: list[int], redelivered: list[int]
) -> None:
    decoded = store.decoded(numbers)
    end = 2 * len(numbers)
    await store.sink().drop()
    await store.sink().prepare()
    await begin(store)
    sink = store.sink()
    place, folded = await place_of(store, sink), [0]
    while place.offset < end:
        following = min(end, place.offset + batches[len(folded) % len(batches)])
        await apply(store, sink, decoded, place, following)
        place = place._replace(offset=following)
        folded.append(following)
        if len(folded) in redelivered:
            with pytest.raises(CheckpointMoved):
                await apply(store, sink, decoded, place._replace(offset=folded[-2]), following)
    assert await store.state() == await expected_state(store, settings, decoded, end)
