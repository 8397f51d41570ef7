"""What an earlier release had folded is gone on with exactly, or left alone in words."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import orjson
import pytest

from agents.fingerprints import golden_log
from agents.registry import Registry, is_ours, kept_up, left_alone, register_declared
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.queries.checkpoints import checkpoints_of
from projections.queries.versions import Version
from projections.sinks.redis_layout import Limits
from schemas.streams import streams
from tests.golden_states import STATES, GoldenState, log_of, read_state
from tests.logs import EVENING
from tests.replay import PLAIN, Replay, Stores, Way, open_stores

pytestmark = pytest.mark.usefixtures("postgres", "redis", "elasticsearch")

GOING_ON = Way(5, 15, 0.1, Limits(rows=5, leaving=3, worth_packing=4), "UTC")
AS_OF = EVENING + timedelta(hours=2)  # after all that the golden log holds
SHARED = ("checkpoints", "parked", "versions")
RELEASES = [GoldenState.read(path) for path in sorted(STATES.glob("*.jsonl"))]
OUTGROWN = [
    state
    for state in RELEASES
    if any(made.fold != streams().projections[name].version for name, made in state.versions.items())
]


@asynccontextmanager
async def left_by(release: GoldenState, settings: Settings) -> AsyncIterator[tuple[Stores, Registry]]:
    """Its state in the stores, after an upgrade: this release's migrations have run, and its worker has registered what it declares."""
    async with open_stores(settings, "UTC") as stores:
        await release.load(stores)
        await provision_tables(settings)
        await register_declared(stores.pool, streams())
        yield stores, Registry(stores.pool)


async def folded(stores: Stores, versions: Sequence[Version], way: Way) -> dict[str, str]:
    """What each projection is once the whole golden log is folded into these versions, from wherever they are."""
    await Replay(stores, log_of(golden_log()), way, versions, as_of=AS_OF).fold()
    return {version.projection: (await stores.dump(version)).decode() for version in versions}


async def records_folded(stores: Stores, version: Version) -> int:
    """Up to its checkpoints."""
    checkpoints = checkpoints_of(version, stores.settings.prefix, stores.pool, stores.redis, stores.elasticsearch)
    log = log_of(golden_log())
    offsets = await checkpoints.next_offsets(log)
    return sum(record.offset < (offsets[at] or 0) for at, partition in log.items() for record in partition.records)


def untouched(state: GoldenState) -> set[bytes]:
    """What lies in the stores under names of its version's own; the tables that all versions share have got columns since."""
    return {orjson.dumps(line) for line in state.lines if line[0] in ("row", "key") and line[1] not in SHARED}


@pytest.mark.parametrize("release", RELEASES, ids=lambda state: state.name)
async def test_what_a_release_had_folded_is_continued_to_what_this_one_makes_of_the_whole_log(
    settings: Settings, release: GoldenState
) -> None:
    async with left_by(release, settings) as (stores, registry):
        ours = kept_up(await registry.versions(), streams())
        half_folded = {version.projection for version in ours if await records_folded(stores, version) > 20}
        same_fold = {
            name for name, made in release.versions.items() if made.fold == streams().projections[name].version
        }
        assert half_folded == same_fold
        continued = await folded(stores, ours, GOING_ON)
        await stores.drop(ours)
        assert continued == await folded(stores, ours, PLAIN)


@pytest.mark.parametrize("release", OUTGROWN, ids=lambda state: state.name)
async def test_what_another_fold_had_made_is_left_alone_in_words_until_its_successor_answers(
    settings: Settings, release: GoldenState
) -> None:
    async with left_by(release, settings) as (stores, registry):
        versions = await registry.versions()
        theirs = [
            versions.active(name) for name in streams().projections if not is_ours(versions.active(name), streams())
        ]
        assert {one.projection: one.fold for one in theirs} == {
            name: made.fold
            for name, made in release.versions.items()
            if made.fold != streams().projections[name].version
        }
        words = left_alone(versions, streams())
        assert len(words) == len(theirs)
        assert all(
            f"`faust -A agents rebuild {one.projection}`" in said for one, said in zip(theirs, words, strict=True)
        )

        successors = [await registry.begin(one.projection, streams().projections[one.projection]) for one in theirs]
        rebuilt = await folded(stores, successors, PLAIN)
        for version in successors:
            await registry.move(version, to="ready")
            await registry.switch(version.projection, version.number)
        assert left_alone(await registry.versions(), streams()) == []
        assert untouched(release) <= untouched(await read_state(release.name, release.records, stores, theirs))
        await stores.drop(successors)
        assert rebuilt == await folded(stores, successors, GOING_ON)
