"""Readers move from one version of a projection to another, and what nobody reads any more is dropped."""

import asyncio
import time
from typing import NamedTuple

from agents.handover import Partition
from agents.registry import NotNow, Registry
from agents.stores import Stores, partitions_of
from projections.queries.versions import Version

CATCH_UP_SECONDS = 30.0
LOOK_SECONDS = 0.1
HEAR_SECONDS = 3.0  # workers look at the registry every second: what is retired is folded no more after so long


class Switched(NamedTuple):
    """What a switch did."""

    projection: str
    before: int
    now: int


class Switching:
    """Raises NotNow for what cannot be, StoreUnavailable when a store is down."""

    def __init__(self, stores: Stores, *, catch_up_seconds: float = CATCH_UP_SECONDS) -> None:
        self._stores = stores
        self._catch_up_seconds = catch_up_seconds
        self._registry = Registry(stores.pool)

    async def switch(self, projection: str, number: int | None = None) -> Switched:
        """Readers move to version `number`, or to the newest that is ready, in one step; once it is as far as the one that answers.

        What another rule made (`what-if`) answers only when it is named.
        """
        versions = (await self._registry.versions()).known(projection)
        ready = [
            v for v in versions if v.state == "ready" and (v.rule is None if number is None else v.number == number)
        ]
        if not ready:
            supposed = [v for v in versions if v.state == "ready" and number is None]
            if supposed:
                raise NotNow(
                    f"{projection}: of what is ready, all counts by another rule; `faust -A agents switch {projection} "
                    f"--version {supposed[-1].number}` lets that answer all the same"
                )
            wanted = f"version {number}" if number else "no other version"
            raise NotNow(
                f"{projection}: {wanted} is ready to answer; `faust -A agents versions` tells what there is, "
                f"`faust -A agents rebuild {projection}` builds one"
            )
        return await self._move(next(v for v in versions if v.state == "active"), ready[-1])

    async def rollback(self, projection: str) -> Switched:
        """Readers move back to the version that answered before, which was kept up since."""
        rows = await self._registry.rows(projection)
        now = next((row for row in rows if row.version.state == "active"), None)
        before = next((r.version for r in rows if now and r.version.number == now.previous), None)
        if now is None or before is None:
            raise NotNow(f"{projection}: no version answered before the one that answers now")
        if before.state != "ready":
            raise NotNow(f"{projection} version {before.number} is {before.state}: there is nothing to go back to")
        return await self._move(now.version, before)

    async def _move(self, active: Version, ready: Version) -> Switched:
        deadline = time.monotonic() + self._catch_up_seconds
        while behind := await self._behind(ready, active):
            if time.monotonic() > deadline:
                raise NotNow(
                    f"{ready.projection} version {ready.number} is behind version {active.number} at {', '.join(map(str, behind))}: "
                    "is a worker of its release running?"
                )
            await asyncio.sleep(LOOK_SECONDS)
        before = await self._registry.switch(ready.projection, ready.number)
        return Switched(ready.projection, before, ready.number)

    async def _behind(self, one: Version, other: Version) -> list[Partition]:
        """The partitions in which `one` is behind `other`; who waits for a write on the one that answers must find it in the next."""
        theirs = await self.positions(other)
        ours = await self.positions(one)
        return [partition for partition, offset in theirs.items() if ours[partition] < offset]

    async def positions(self, version: Version) -> dict[Partition, int]:
        """How far the version is in each of its partitions."""
        found = await self._stores.checkpoints(version).next_offsets(partitions_of(version.projection))
        return {Partition(*partition): offset for partition, offset in found.items()}

    async def retire(self, projection: str, number: int | None = None) -> Version:
        """Drop version `number`, or the only one that does not answer, once nobody can be reading it."""
        versions = (await self._registry.versions()).known(projection)
        others = [v for v in versions if v.state in ("ready", "building") and number in (None, v.number)]
        if number is not None and not others:
            others = [v for v in versions if v.number == number and v.state != "active"]
        if len(others) != 1:
            raise NotNow(_which(projection, number, versions, others))
        (version,) = others
        if version.state == "building":
            await self._registry.pause(version, True)
            await self._until_nobody_builds(version)
        wait_seconds = await self._registry.until_nobody_reads(version) if version.state == "ready" else 0.0
        if version.state != "retired":
            await self._registry.move(version, to="retired")
        await asyncio.sleep(max(wait_seconds, HEAR_SECONDS))
        await self._stores.sink(version).drop()
        await self._registry.forget(version)
        return version

    async def _until_nobody_builds(self, version: Version) -> None:
        deadline = time.monotonic() + self._catch_up_seconds
        while True:
            try:
                async with self._registry.at_work(version.projection):
                    return
            except NotNow:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(LOOK_SECONDS)


def _which(projection: str, number: int | None, versions: list[Version], others: list[Version]) -> str:
    if any(v.number == number and v.state == "active" for v in versions):
        return f"{projection} version {number} answers: `faust -A agents switch {projection}` or `rollback {projection}` comes first"
    if number is not None:
        return f"{projection} has no version {number}: `faust -A agents versions` tells what there is"
    if not others:
        return f"{projection} has no version but the one that answers"
    numbers = ", ".join(str(v.number) for v in others)
    return f"{projection} has the versions {numbers} beside the one that answers: say which with --version"
