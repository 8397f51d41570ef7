"""Two versions are compared at the same places of the log; and a version with a rule tells what would move."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agents.refolding import Refolding
from agents.registry import NotNow, Registry, register_declared
from agents.stores import Stores, open_stores, partitions_of
from agents.supposing import films_of, moved
from agents.verifying import Verified, Verifying, told
from compose.settings import Settings
from projections.queries.versions import Version, declared
from projections.rule import Rule
from schemas.events import Event, VideoViewed
from schemas.streams import streams
from tests.given import EVENING, announced, deleted, uploaded
from tests.servers import Servers
from tests.working import command, produce, producing, provision_log

pytestmark = [pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch"), pytest.mark.timeout(300)]

FILMS = ("alien", "heat", "ran")


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    await provision_log(settings)
    async with open_stores(settings) as opened:
        await register_declared(opened.pool, streams())
        yield opened


def view(number: int, **more: Any) -> VideoViewed:
    return VideoViewed(view_id=f"view-{number}", video_id=FILMS[number % 3], occurred_at=EVENING, **more)


async def fold(settings: Settings, stores: Stores, version: Version) -> Version:
    await stores.sink(version).prepare()
    await Refolding(settings, stores, version, partitions_of(version.projection)).run()
    return version


async def rebuilt(settings: Settings, stores: Stores, projection: str, rule: Rule | None = None) -> Version:
    registry, written = Registry(stores.pool), rule and rule.model_dump(mode="json")
    version = await registry.begin(projection, streams().projections[projection], written)
    await registry.move(await fold(settings, stores, version), to="ready")
    return version


async def some_log(settings: Settings) -> None:
    """Views, some of them twice and one from the future; films; and a record that nobody can read on each topic."""
    films: list[Event] = [event for film in FILMS for event in (announced(film), uploaded(film))]
    await produce(settings, [*films, deleted("ran"), *(view(n % 40) for n in range(50))])
    await produce(settings, [VideoViewed(view_id="early", video_id="heat", occurred_at="2099-01-01T00:00:00Z")])  # type: ignore[arg-type]
    async with producing(settings) as producer:
        for topic in ("views", "videos"):
            await producer.send_and_wait(settings.named(topic), b"no json", b"key", partition=2)


@pytest.mark.parametrize("projection", ["statistics", "views", "leaderboard", "search"])
async def test_a_version_folded_anew_equals_the_other_and_every_record_is_accounted_for(
    settings: Settings, stores: Stores, projection: str
) -> None:
    await some_log(settings)
    active = await fold(settings, stores, declared(projection))
    version = await rebuilt(settings, stores, projection)
    # The version that answers has folded on since.
    await produce(settings, [view(100), deleted("heat")])
    await fold(settings, stores, active)
    verified = await Verifying(settings, stores).verify(projection)
    assert (verified.is_equal, verified.shown) == (True, [])
    account = verified.accounts[active.number]
    assert account == verified.accounts[version.number]
    if projection in ("statistics", "views"):
        assert account[:8] == (53, 41, 10, 1, 0, 1, 0, 41)
    if projection == "search":
        assert (account.records, account.parked) == (9, 1)


async def test_a_row_that_differs_is_shown_and_a_record_that_nobody_knows_of_is_missed(
    settings: Settings, stores: Stores
) -> None:
    await some_log(settings)
    await fold(settings, stores, declared("statistics"))
    version = await rebuilt(settings, stores, "statistics")
    await stores.pool.execute(f"update {version.table('daily')} set views = views + 1 where video_id = 'heat'")
    await stores.pool.execute("delete from parked where version = $1", version.number)
    verified = await Verifying(settings, stores).verify("statistics")
    assert not verified.is_equal
    assert differing(verified) == [("daily", {"views": 13}, {"views": 14})]
    assert [account.adds_up for account in verified.accounts.values()] == [True, False]


def differing(verified: Verified) -> list[Any]:
    rows = [told(difference) for difference in verified.shown]
    assert all("heat" in row[1] for row in rows)
    return [(table, one, other) for table, _, one, other in rows]


async def test_there_is_nothing_to_compare_with_before_a_rebuild(settings: Settings, stores: Stores) -> None:
    with pytest.raises(NotNow, match="agents rebuild statistics"):
        await Verifying(settings, stores).verify("statistics")


async def test_a_version_with_a_rule_counts_less_says_what_moves_and_still_adds_up(
    settings: Settings, stores: Stores
) -> None:
    seen = [view(n, watched_seconds=40.0 if n % 3 else 5.0, viewer_id="bot" if n < 6 else "ann") for n in range(30)]
    await produce(settings, seen)
    rule = Rule(watched_at_least_seconds=30, without_viewers=frozenset({"bot"}))
    for projection in ("statistics", "leaderboard"):
        active = await fold(settings, stores, declared(projection))
        version = await rebuilt(settings, stores, projection, rule)
        now, then = await films_of(stores, active), await films_of(stores, version)
        assert (now, then) == (dict.fromkeys(FILMS, 10), {"heat": 8, "ran": 8})
        assert [(film.video_id, film.rank_then, film.rank_now) for film in moved(now, then, 3)] == [
            ("ran", 1, 1),
            ("heat", 2, 2),
            ("alien", None, 3),
        ]
        verified = await Verifying(settings, stores).verify(projection)
        assert verified.different
        account = verified.accounts[version.number]
        assert (account.accepted, account.ruled_out, account.views_held, account.adds_up) == (16, 14, 16, True)


async def test_what_if_tells_which_films_would_move_by_their_titles(
    settings: Settings, servers: Servers, stores: Stores
) -> None:
    seen = [view(n, watched_seconds=40.0 if n % 3 else 5.0) for n in range(30)]
    await produce(settings, [announced("alien", "Alien"), announced("heat", "Heat"), announced("ran", "Ran"), *seen])
    for projection in ("catalogue", "statistics"):
        await fold(settings, stores, declared(projection))
    said = await command(settings, servers, "what-if", "statistics", "--watched-at-least", "30", "--workers", "1")
    alien, heat = (next(line for line in said.splitlines() if title in line) for title in ("Alien", "Heat"))
    assert [cell.strip() for cell in alien.split("│")[1:-1]] == ["3", "-", "gone", "alien", "Alien", "10", "0", "-10"]
    assert [cell.strip() for cell in heat.split("│")[1:-1]] == ["2", "2", "", "heat", "Heat", "10", "10", "0"]
    assert "20 views of 2 films count instead of 30 of 3 (-33.3%)" in said
    assert "verify" not in said, "who counts by another rule is not the same"
