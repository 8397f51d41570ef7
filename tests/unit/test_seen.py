"""The seen ids that a worker's projections share: each is told what the whole log means, wherever it stands and whoever was first."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from agents.folding import judge
from agents.handover import Partition
from agents.reading import read_records
from agents.seen import SeenIdsOfWorker
from projections.counting import SeenIds
from schemas.envelope import encode
from tests.logs import PartitionInMemory
from tests.records import Kept, kept
from tests.working import viewed

WITHIN = timedelta(hours=6)
HOME = Partition("views", 0)
START = datetime(2026, 5, 1, 20, tzinfo=UTC)
PROJECTIONS = ("views", "statistics", "leaderboard")


def log_of(drawn: Sequence[tuple[str, int]]) -> PartitionInMemory:
    """A view of each id, so many minutes after the one before."""
    records, minutes = [], 0
    for offset, (view_id, later_minutes) in enumerate(drawn):
        minutes += later_minutes
        at = START + timedelta(minutes=minutes)
        message = encode(viewed(view_id, "film", at=at), event_id=view_id, source="/tests")
        records.append(kept(message, partition=0, offset=offset, timestamp=round(at.timestamp() * 1_000)))
    return PartitionInMemory(HOME, records)


def worker_over(log: PartitionInMemory, **options: int) -> SeenIdsOfWorker:
    return SeenIdsOfWorker({"views": WITHIN}, {"views": 1}, log.open, **options)  # type: ignore[arg-type]


def judged(seen: SeenIds, records: Sequence[Kept]) -> list[int]:
    """The offsets that count."""
    return [item.recorded.place.offset for item in judge(seen, read_records(records, HOME, 1).decoded).counted]


some_views = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 240)), min_size=1, max_size=30)


@given(some_views, st.lists(st.tuples(st.sampled_from(PROJECTIONS), st.integers(1, 8)), max_size=30), st.data())
async def test_every_projection_is_told_what_the_whole_log_means(
    drawn: list[tuple[str, int]], turns: list[tuple[str, int]], data: st.DataObject
) -> None:
    log = log_of(drawn)
    whole = judged(SeenIds(WITHIN, start_offset=0), log.records)
    seen = worker_over(log)
    at = {name: data.draw(st.integers(0, len(drawn))) for name in PROJECTIONS}
    for name in PROJECTIONS:
        seen.hold(name, HOME)
    for name, size in turns:
        batch = log.records[at[name] : at[name] + size]
        if batch:
            window = await seen.window(name, HOME, at[name])
            assert judged(window, batch) == [offset for offset in whole if at[name] <= offset < at[name] + size]
            at[name] += len(batch)


async def test_projections_side_by_side_read_the_log_once() -> None:
    log = log_of([("a", 1), ("b", 1), ("a", 1)])
    seen = worker_over(log)
    for name in PROJECTIONS:
        judged(await seen.window(name, HOME, 0), log.records)
    assert log.opened == 1


async def test_the_last_projection_takes_the_window_with_it() -> None:
    log = log_of([("a", 1), ("b", 1)])
    seen = worker_over(log)
    for name in PROJECTIONS[:2]:
        seen.hold(name, HOME)
        await seen.window(name, HOME, 0)
    seen.release("views", HOME)
    await seen.window("statistics", HOME, 0)
    assert log.opened == 1
    seen.release("statistics", HOME)
    await seen.window("statistics", HOME, 0)
    assert log.opened == 2


async def test_who_passed_over_a_view_stands_apart_until_no_window_remembers_it() -> None:
    log = log_of([("a", 1), ("b", 1), ("a", 1), *((f"{hour}", 60) for hour in range(15)), ("a", 1)])
    seen = worker_over(log)
    for name in PROJECTIONS[:2]:
        seen.hold(name, HOME)
    passed: list[int] = []

    async def passed_over(partition: Partition, to_offset: int) -> list[int]:
        return [offset for offset in passed if offset < to_offset]

    shared = await seen.window("views", HOME, 0)
    assert await seen.window("statistics", HOME, 0, passed_over) is shared
    assert judged(shared, log.records[:2]) == [0, 1]
    # It refuses the first, which the window has judged.
    passed.append(0)
    seen.look_again("statistics", HOME)
    own = await seen.window("statistics", HOME, 1, passed_over)
    assert own is not shared
    assert judged(own, log.records[1:3]) == [1, 2]
    assert judged(await seen.window("views", HOME, 2), log.records[2:3]) == []
    for offset in range(3, 18):
        window = await seen.window("statistics", HOME, offset, passed_over)
        judged(window, log.records[offset : offset + 1])
    assert await seen.window("statistics", HOME, 18, passed_over) is await seen.window("views", HOME, 18)
    assert judged(await seen.window("views", HOME, 18), log.records[18:]) == [18]


@given(
    some_views,
    st.sets(st.integers(0, 29)),
    st.integers(1, 8),
    st.lists(st.none() | st.integers(0, 29), max_size=9),
    st.sampled_from([1, 4, 1_000]),
)
@example([("x" if n in (5, 13) else f"{n}", 0) for n in range(14)], {5, 12}, 3, [3, None, None, None], 1_000)
async def test_whatever_a_store_refuses_on_the_way_takes_no_id(
    drawn: list[tuple[str, int]], refused: set[int], size: int, restored_to: list[int | None], go_back_records: int
) -> None:
    """Each batch is judged before its views are refused; what lies behind one that is refused is read again. A store that was restored
    refuses nothing that it refused before."""
    log = log_of(drawn)
    seen = worker_over(log, go_back_records=go_back_records)
    passed: list[int] = []
    counted: list[int] = []

    async def passed_over(partition: Partition, to_offset: int) -> list[int]:
        return [offset for offset in passed if offset < to_offset]

    at = 0
    while at < len(drawn):
        to = restored_to.pop() if restored_to else None
        if to is not None and to < at:
            at, refused = to, {offset for offset in refused if offset < to or offset >= at}
            passed, counted = [o for o in passed if o < to], [o for o in counted if o < to]
            seen.look_again("views", HOME)
        window = await seen.window("views", HOME, at, passed_over)
        for offset in judged(window, log.records[at : at + size]):
            if offset in refused:
                passed.append(offset)
                seen.look_again("views", HOME)
                at = offset + 1
                break
            counted.append(offset)
        else:
            at += size
            window.judged_to = max(window.judged_to, at)
    assert counted == [offset for offset in what_counts(drawn, set(passed)) if offset not in passed]


def what_counts(drawn: Sequence[tuple[str, int]], refused: set[int]) -> list[int]:
    """The views that are no duplicates, of those that have taken their ids."""
    taken: dict[str, int] = {}
    counted, minutes = [], 0
    for offset, (view_id, later_minutes) in enumerate(drawn):
        minutes += later_minutes
        counts = view_id not in taken or timedelta(minutes=minutes - taken[view_id]) > WITHIN
        if counts:
            counted.append(offset)
        if not counts or offset not in refused:
            taken[view_id] = minutes
    return counted


async def test_who_refuses_one_view_after_another_has_its_window_filled_once() -> None:
    log = log_of([(f"{number}", 0) for number in range(1_000)])
    seen = worker_over(log)
    passed: list[int] = []

    async def passed_over(partition: Partition, to_offset: int) -> list[int]:
        return [offset for offset in passed if offset < to_offset]

    for at in range(900, 1_000, 5):
        judged(await seen.window("views", HOME, at, passed_over), log.records[at : at + 8])
        passed.append(at + 4)
        seen.look_again("views", HOME)
    # Once for who shares, once for who stands apart; then each time from where that was.
    assert log.handed_out < 2 * 1_000 + 20 * 110


async def test_what_was_passed_over_and_is_no_view_sets_nobody_apart() -> None:
    log = log_of([("a", 1), ("b", 1), ("c", 1)])
    log.records = [log.records[0], log.records[1]._replace(value=b"no json"), log.records[2]]
    seen = worker_over(log)

    async def passed_over(partition: Partition, to_offset: int) -> list[int]:
        return [offset for offset in (1,) if offset < to_offset]

    shared = await seen.window("views", HOME, 2)
    assert await seen.window("statistics", HOME, 2, passed_over) is shared
