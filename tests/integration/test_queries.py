"""What is read from Postgres equals a plain look at the events that were folded."""

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from compose.connections import open_postgres
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.catalogue import catalogue
from projections.counting import day_start, hour_start
from projections.leaderboard import WINDOWS
from projections.positions import in_credits, positions
from projections.projection import Projection
from projections.queries.catalogue import Catalogue
from projections.queries.positions import Positions
from projections.queries.statistics import Statistics, start_of
from projections.queries.versions import Versions
from projections.sinks.postgres import PostgresSink
from projections.sinks.sink import LogIdentity, StoreUnavailable
from projections.statistics import statistics
from projections.views import views
from schemas.events import Event, PositionUpdated, VideoViewed
from tests.given import (
    EVENING,
    aborted,
    announced,
    deleted,
    failed,
    progressed,
    recorded,
    stopped,
    transcoded,
    uploaded,
)

pytestmark = pytest.mark.usefixtures("postgres")

LOG = LogIdentity("cluster", "topic", 6)
NOW = EVENING + timedelta(minutes=37, seconds=12)
quick = hypothesis_settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
trials = itertools.count()


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Any]:
    """A database with every table."""
    await provision_tables(settings)
    async with open_postgres(settings) as opened:
        for projection in (catalogue, positions, statistics, views):
            await PostgresSink(opened, projection).prepare()
        yield opened


async def fold(pool: Any, projection: Projection, events: Sequence[Event]) -> None:
    sink = PostgresSink(pool, projection)
    place = (await sink.checkpoint(projection.topics[0], 0, LOG)).place
    decoded = recorded(events, first_offset=place.offset)
    await sink.apply(list(projection.fold(decoded)), expected=place, next_offset=place.offset + len(events))


async def test_a_film_that_plays_is_found_with_all_that_a_player_needs(pool: Any) -> None:
    await fold(pool, catalogue, [announced("a", "Heat", genre="Crime"), uploaded("a"), transcoded("a")])
    film = await Catalogue(pool, Versions()).find("a")
    assert film is not None
    assert (film.title, film.genre, film.status, film.progress) == ("Heat", "Crime", "COMPLETED", 1.0)
    assert (film.hls_prefix, film.source_key, film.size) == ("videos/a/hls/1-a", "videos/a/source/1", 1_000)
    assert [variant["quality"] for variant in film.variants] == ["240p"]


async def test_films_are_found_in_whatever_state_but_deleted(pool: Any) -> None:
    events = [
        *(announced(video) for video in ("announced", "waiting", "working", "failed", "deleted", "aborted")),
        *(uploaded(video) for video in ("waiting", "working", "failed", "deleted")),
        progressed("working", 0.5),
        failed("failed", "No picture in it."),
        deleted("deleted"),
        aborted("aborted"),
    ]
    await fold(pool, catalogue, events)
    reads = Catalogue(pool, Versions())
    found = await reads.find_many([event.key for event in events] + ["never"])
    assert {video: film.status for video, film in found.items()} == {
        "announced": "PENDING",
        "waiting": "PENDING",
        "working": "PROCESSING",
        "failed": "FAILED",
    }
    assert found["failed"].error == "No picture in it."
    assert [await reads.is_deleted(video) for video in ("deleted", "aborted", "working", "never")] == [
        True,
        True,
        False,
        False,
    ]


async def test_a_film_that_only_progress_is_known_of_is_no_error(pool: Any) -> None:
    await fold(pool, catalogue, [progressed("early", 0.25)])
    film = await Catalogue(pool, Versions()).find("early")
    assert film is not None
    assert (film.title, film.status, film.variants) == (None, "PROCESSING", [])


async def test_pages_hold_the_newest_first_and_know_how_many_there_are(pool: Any) -> None:
    kinds = ("movie", "short")
    await fold(
        pool,
        catalogue,
        [
            *(announced(f"film-{n}", content_type=kinds[n % 2], genre="Drama" if n < 4 else "Crime") for n in range(8)),
            *(uploaded(f"film-{n}", at=f"20:{n:02}") for n in range(7)),
            deleted("film-6"),
        ],
    )
    reads = Catalogue(pool, Versions())
    total, page = await reads.page(limit=2, offset=1)
    assert (total, [film.video_id for film in page]) == (6, ["film-4", "film-3"])
    total, page = await reads.page(content_type="movie", genre="Drama", limit=10, offset=0)
    assert (total, [film.video_id for film in page]) == (2, ["film-2", "film-0"])


def answering(updates: Sequence[PositionUpdated]) -> PositionUpdated:
    """The rule by its words: the newest update of the session that moved last; if none moved, of the one with the newest update."""
    sessions: dict[str, list[PositionUpdated]] = {}
    for update in updates:
        sessions.setdefault(update.session_id or "", []).append(update)

    def rank(session: str) -> tuple[float, datetime, str]:
        moved = [update.occurred_at.timestamp() for update in sessions[session] if update.state != "paused"]
        return max(moved, default=-1.0), max(update.occurred_at for update in sessions[session]), session

    return max(sessions[max(sessions, key=rank)], key=lambda update: update.occurred_at)


some_updates = st.lists(
    st.tuples(
        st.sampled_from(["alien", "heat", "ran"]),
        st.sampled_from([None, "phone", "tv"]),
        st.sampled_from([None, "playing", "paused", "stopped"]),
        st.integers(0, 100),
    ),
    min_size=1,
    max_size=12,
)


@quick
@given(drawn=some_updates, random=st.randoms(use_true_random=False))
async def test_who_watched_what_is_answered_as_the_rule_says(pool: Any, drawn: list[Any], random: Any) -> None:
    viewer = f"ann-{next(trials)}"
    updates = [
        PositionUpdated(
            viewer_id=viewer,
            video_id=video,
            session_id=session,
            state=state,
            position_seconds=float(seconds),
            duration_seconds=100.0,
            # Two updates of one moment have no order but the log's.
            occurred_at=EVENING + timedelta(seconds=n),
        )
        for n, (video, session, state, seconds) in enumerate(drawn)
    ]
    await fold(pool, catalogue, [announced(video) for video in ("alien", "heat", "ran")])
    await fold(pool, positions, random.sample(updates, len(updates)))
    reads = Positions(pool, Versions())
    answers = {v: answering([u for u in updates if u.video_id == v]) for v in {u.video_id for u in updates}}
    for video, answer in answers.items():
        found = await reads.position(viewer, video)
        assert found is not None
        assert (found.position_seconds, found.updated_at) == (answer.position_seconds, answer.occurred_at)
    newest = sorted(answers.values(), key=lambda answer: answer.occurred_at, reverse=True)
    seen = [a.video_id for a in newest if in_credits(a.position_seconds, a.duration_seconds)]
    begun = [a.video_id for a in newest if a.video_id not in seen and a.position_seconds > 0]
    assert [item.video_id for item in await reads.completed(viewer, 10)] == seen
    assert [item.video_id for item in await reads.continue_watching(viewer, 10)] == begun


async def test_who_never_watched_has_no_position(pool: Any) -> None:
    assert await Positions(pool, Versions()).position("nobody", "heat") is None


async def test_deleted_films_are_left_out_of_what_to_go_on_watching(pool: Any) -> None:
    await fold(pool, catalogue, [announced("heat"), announced("gone"), deleted("gone")])
    watched = [stopped("ann", "heat", at="20:10", seconds=60), stopped("ann", "gone", at="20:20", seconds=60)]
    await fold(pool, positions, watched)
    assert [item.video_id for item in await Positions(pool, Versions()).continue_watching("ann", 10)] == ["heat"]


some_views = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 400 * 24 * 60).map(lambda minutes: timedelta(minutes=minutes))),
    max_size=30,
)


@quick
@given(drawn=some_views)
async def test_every_window_and_the_history_count_the_views_that_lie_in_them(
    pool: Any, drawn: list[tuple[str, timedelta]]
) -> None:
    cast = f"-{next(trials)}"
    seen = [
        VideoViewed(view_id=f"view-{n}{cast}", video_id=video + cast, occurred_at=NOW - age)
        for n, (video, age) in enumerate(drawn)
    ]
    await fold(pool, statistics, seen)
    await fold(pool, views, seen)
    reads = Statistics(pool, Versions())
    for window in WINDOWS:
        start = start_of(window, NOW)
        expected = Counter(view.video_id for view in seen if start is None or view.occurred_at >= start)
        top = await reads.top(1_000, window.name, NOW)  # type: ignore[arg-type]
        assert {item.video_id: item.views for item in top.items if item.video_id.endswith(cast)} == expected
        assert top.source == ("raw" if window.name == "hour" else "aggregates")
        of_a = await reads.views(f"a{cast}", NOW)
        assert getattr(of_a, window.name) == expected[f"a{cast}"]
    for bucket, start_of_bucket in (("hour", hour_start), ("day", day_start)):
        counts = Counter(start_of_bucket(view.occurred_at) for view in seen if view.video_id == f"a{cast}")
        points = await reads.history(f"a{cast}", from_=None, to=None, bucket=bucket)  # type: ignore[arg-type]
        assert points == sorted(counts.items())


async def test_a_history_holds_the_bucket_that_its_beginning_lies_in_and_not_that_of_its_end(pool: Any) -> None:
    ages = [timedelta(hours=hours) for hours in range(5)]
    await fold(
        pool,
        statistics,
        [VideoViewed(view_id=str(n), video_id="heat", occurred_at=EVENING - age) for n, age in enumerate(ages)],
    )
    from_, to = EVENING - timedelta(hours=3) + timedelta(minutes=20), EVENING - timedelta(hours=1)
    points = await Statistics(pool, Versions()).history("heat", from_=from_, to=to, bucket="hour")
    assert [point.start for point in points] == [EVENING - timedelta(hours=3), EVENING - timedelta(hours=2)]


async def test_the_top_holds_most_views_first_and_no_deleted_film(pool: Any) -> None:
    seen = [
        VideoViewed(view_id=f"{video}-{n}", video_id=video, occurred_at=NOW)
        for video, count in (("b", 2), ("c", 2), ("gone", 5), ("a", 3))
        for n in range(count)
    ]
    await fold(pool, catalogue, [announced("gone"), deleted("gone")])
    await fold(pool, statistics, seen)
    top = await Statistics(pool, Versions()).top(2, "day", NOW)
    assert [(item.rank, item.video_id, item.views) for item in top.items] == [(1, "a", 3), (2, "c", 2)]


async def test_a_table_that_is_not_made_yet_is_waited_for(settings: Settings) -> None:
    await provision_tables(settings)
    async with open_postgres(settings) as pool:
        with pytest.raises(StoreUnavailable):
            await Catalogue(pool, Versions()).find("a")


async def test_a_server_that_is_down_is_unavailable_in_words(settings: Settings) -> None:
    elsewhere = settings.model_copy(
        update={"postgres_dsn": type(settings.postgres_dsn)("postgresql://nobody@127.0.0.1:9/nothing")}
    )
    async with open_postgres(elsewhere) as pool:
        with pytest.raises(StoreUnavailable, match="postgres is unavailable"):
            await Catalogue(pool, Versions()).find("a")
