"""Workers that are killed, frozen or joined by others while views come in: the totals are exact."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from compose.local.stack import ROOT
from compose.settings import Settings
from schemas.events import VideoViewed
from tests.servers import Servers
from tests.working import Totals, counting, produce, provision_log, settled, until, viewed, working

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(400)]

FILMS = [f"film-{i}" for i in range(20)]
PART = 3_000
HANGING = Path(__file__).parent / "hanging"


def some_views(part: int) -> list[VideoViewed]:
    """A part's views, one in twenty of which was in the part before as well."""
    first = part * PART
    return [viewed(f"view-{max(0, i - PART if i % 20 == 0 else i)}", FILMS[i % 7]) for i in range(first, first + PART)]


def what_counts(views: Sequence[VideoViewed]) -> Counter[str]:
    """What the log means, by the plainest fold: each id once, where it came first."""
    first: dict[str, str] = {}
    for view in views:
        first.setdefault(view.view_id, view.video_id)
    return Counter(first.values())


async def more_than(settings: Settings, views: int) -> None:
    async with counting(settings) as totals:

        async def are_counted() -> bool:
            found = await totals(FILMS)
            return found is not None and all(sum(by_film.values()) > views for by_film in found)

        await until(are_counted)


async def test_totals_are_exact_after_a_worker_is_killed_twice_in_the_middle(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    parts = [some_views(part) for part in range(3)]
    with working(settings, servers, tmp_path, "one") as (worker,):
        for number, part in enumerate(parts):
            producing = asyncio.create_task(produce(settings, part))
            if number < 2:
                await more_than(settings, number * PART)
                worker.kill()
                worker.start()
            await producing
        expected = what_counts([*chain(*parts)])
        assert await settled(settings, expected) == Totals(expected, expected, expected)


async def test_another_worker_takes_over_what_a_killed_one_held(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    parts = [some_views(part) for part in range(2)]
    with working(settings, servers, tmp_path, "one", "two") as (one, two):
        await produce(settings, parts[0])
        first = what_counts(parts[0])
        assert await settled(settings, first) == Totals(first, first, first)
        one.kill()
        await produce(settings, parts[1])
        expected = what_counts([*chain(*parts)])
        assert await settled(settings, expected) == Totals(expected, expected, expected)
        assert two.process.poll() is None


async def test_a_worker_that_was_frozen_and_overtaken_writes_nothing_when_it_thaws(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    parts = [some_views(part) for part in range(3)]
    with working(settings, servers, tmp_path, "one", "two") as (one, two):
        producing = asyncio.create_task(produce(settings, parts[0]))
        await more_than(settings, 0)
        one.freeze()
        await producing
        await produce(settings, parts[1])
        overtaken = what_counts(parts[0] + parts[1])
        assert await settled(settings, overtaken) == Totals(overtaken, overtaken, overtaken)
        one.thaw()
        await produce(settings, parts[2])
        expected = what_counts([*chain(*parts)])
        assert await settled(settings, expected) == Totals(expected, expected, expected)
        assert [one.process.poll(), two.process.poll()] == [None, None]


async def test_a_reader_that_hangs_is_begun_again_and_folds_all_that_is_left(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    await provision_log(settings)
    hangs = tmp_path / "hangs"
    injected = {"PYTHONPATH": f"{HANGING}:{ROOT}", "HANGS": str(hangs)}
    with working(settings, servers, tmp_path, "one", **injected) as (worker,):
        await produce(settings, some_views(0))
        first = what_counts(some_views(0))
        assert await settled(settings, first) == Totals(first, first, first)
        hangs.touch()
        await produce(settings, some_views(1))
        expected = what_counts(some_views(0) + some_views(1))
        assert await settled(settings, expected) == Totals(expected, expected, expected)
        assert not hangs.exists()
        assert "a reader is stuck and is started again" in worker.said
        assert worker.process.poll() is None
