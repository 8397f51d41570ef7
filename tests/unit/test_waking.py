"""A worker wakes a reader that stands still, if its store answers; a fake reader and store are handed in."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from agents.handover import Partition, Progress
from agents.standing import Judged, Standing
from agents.watchdog import RESTARTS, Stuck, Watchdog
from agents.worker import Held, Reading
from projections.queries.versions import Version, declared
from projections.sinks.sink import StoreUnavailable


class Reader:
    """Reads for ever, and stands still."""

    has_begun = True

    def stop(self) -> None:
        """It hears nothing: it has to be cancelled."""

    def whereabouts(self) -> str:
        return "in a call that never returns"

    def standings(self) -> list[Standing]:
        return [stuck().standing]


class Stores:
    """A store that answers, or is down."""

    def __init__(self) -> None:
        self.down = False

    def checkpoints(self, version: Version) -> "Stores":
        return self

    async def next_offsets(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        if self.down:
            raise StoreUnavailable("memory", "down")
        return dict.fromkeys(partitions, 41)


class Woken(Reading):
    """A worker's readers, begun with fakes."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.stores = Stores()
        self._stores = cast(Any, self.stores)
        self._changing = asyncio.Lock()
        self._watchdog = Watchdog()
        self._held = {}

    def _begin(self, version: Version, may_fold: asyncio.Event) -> Held:
        self.begun.append(version.projection)
        running = asyncio.create_task(asyncio.Event().wait())
        return Held(version, cast(Any, Reader()), cast(Any, None), cast(Any, running), may_fold)


def stuck() -> Judged:
    progress = Progress(41, None, "records")
    version = declared("views").number
    standing = Standing("views", version, Partition("views", 3), progress, None, None)
    return Judged(standing, 1_000, 70.0, datetime.now(UTC), "views has not moved")


@pytest.fixture
async def woken() -> AsyncIterator[Woken]:
    woken = Woken()
    name = declared("views").full_name
    woken._held[name] = woken._begin(declared("views"), asyncio.Event())
    woken._held[name].may_fold.set()
    yield woken
    for held in woken._held.values():
        held.running.cancel()


async def test_a_reader_that_stands_still_is_ended_and_begun_again(woken: Woken) -> None:
    (first,) = woken._held.values()
    await woken._wake([stuck()])
    (second,) = woken._held.values()
    assert first.running.cancelled()
    assert not second.running.done()
    assert woken.begun == ["views"] * 2


async def test_a_reader_that_is_begun_again_may_fold(woken: Woken) -> None:
    await woken._wake([stuck()])
    (second,) = woken._held.values()
    assert second.may_fold.is_set()
    assert [standing.reason for standing in woken._standings()] == [None]


async def test_a_reader_whose_store_is_away_is_left_to_wait(woken: Woken) -> None:
    woken.stores.down = True
    await woken._wake([stuck()])
    assert woken.begun == ["views"]


async def test_after_three_times_in_vain_the_worker_is_at_fault(woken: Woken) -> None:
    for _ in range(RESTARTS):
        await woken._wake([stuck()])
    with pytest.raises(Stuck):
        await woken._wake([stuck()])


async def test_a_version_that_is_held_to_be_compared_has_a_reason(woken: Woken) -> None:
    (held,) = woken._held.values()
    assert [standing.reason for standing in woken._standings()] == [None]
    held.may_fold.clear()
    assert [standing.reason for standing in woken._standings()] == ["the comparison that holds it still"]
