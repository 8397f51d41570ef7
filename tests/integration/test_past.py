"""What Postgres answers about the past is what the log says, replayed in memory."""

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agents.past import Past as PastInLog
from agents.replaying import Replay
from compose.connections import open_postgres
from compose.provisioning import provision_tables
from compose.settings import Settings
from projections.chronicle import chronicle
from projections.leaderboard import WINDOWS
from projections.projection import Projection
from projections.queries.catalogue import newest_first
from projections.queries.chronicle import Chronicle
from projections.queries.past import Past
from projections.queries.versions import Versions
from projections.sinks.postgres import PostgresSink
from projections.views import views
from schemas.events import Event, VideoViewed
from tests.given import announced, deleted, failed, transcoded, uploaded
from tests.small_log import SMALL, START, SmallLog, fold

pytestmark = pytest.mark.usefixtures("postgres")

FILMS = ("alien", "heat", "ran")
LIVES: tuple[Callable[[str], Event], ...] = (announced, uploaded, transcoded, failed, deleted)
quick = hypothesis_settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
trials = itertools.count()


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Any]:
    """A database with every table."""
    await provision_tables(settings)
    async with open_postgres(settings) as opened:
        yield opened


async def folded(pool: Any, projection: Projection, log: SmallLog) -> None:
    """All of the log, into tables that are empty."""
    sink = PostgresSink(pool, projection)
    await sink.drop()
    await sink.prepare()
    await fold(log, projection, sink, pool)


some_events = st.lists(
    st.tuples(
        st.sampled_from(["view", "view", "view", "life"]),
        st.sampled_from("abcdefgh"),
        st.sampled_from(FILMS),
        st.integers(0, 200),
        st.sampled_from([0, 0, -1, -3, 90, 4_000]),
        st.sampled_from(LIVES),
    ),
    max_size=25,
)


def log_of(drawn: Sequence[tuple[Any, ...]]) -> SmallLog:
    log, at = SmallLog(), START
    for kind, view_id, film, later_minutes, late_minutes, step in drawn:
        at += timedelta(minutes=later_minutes, milliseconds=333)
        if kind == "view":
            log.append(
                VideoViewed(view_id=view_id, video_id=film, occurred_at=at - timedelta(minutes=late_minutes)), at
            )
        else:
            log.append(step(film).model_copy(update={"occurred_at": at}), at)
    return log


@quick
@given(drawn=some_events, minutes=st.integers(-5, 1_500), genre=st.sampled_from([None, "Crime"]))
async def test_the_raw_views_and_the_chronicle_answer_as_the_log_does(
    pool: Any, drawn: list[tuple[Any, ...]], minutes: int, genre: str | None
) -> None:
    log, moment = log_of(drawn), START + timedelta(minutes=minutes)
    for projection in (views, chronicle):
        await folded(pool, projection, log)
    in_log, in_postgres = PastInLog(Replay(log.open, SMALL), moment, Versions()), Past(pool, Versions())
    for window in WINDOWS:
        name: Any = window.name
        said = (await in_log.top(10, name))._replace(source="raw")
        assert await in_postgres.top(10, name, moment) == said
    assert await in_postgres.views("heat", moment) == (await in_log.views("heat"))._replace(source="raw")
    for bucket in ("hour", "day"):
        found = await in_postgres.history("heat", moment, from_=None, to=None, bucket=bucket)  # type: ignore[arg-type]
        assert found == await in_log.history("heat", bucket)  # type: ignore[arg-type]
    films = await in_log.films()
    kept = Chronicle(pool, Versions())
    assert await kept.find_many(FILMS, moment) == films
    there = [film for film in newest_first(films.values()) if genre is None or film.genre == genre]
    assert await kept.page(moment, genre=genre, limit=2, offset=0) == (len(there), there[:2])


async def test_a_history_of_the_past_has_the_bounds_of_one_of_the_present(pool: Any) -> None:
    log = SmallLog()
    for hour, name in enumerate("abcde"):
        at = START + timedelta(hours=hour)
        log.append(VideoViewed(view_id=name, video_id="heat", occurred_at=at), at)
    await folded(pool, views, log)
    from_, to = START + timedelta(hours=1, minutes=10), START.replace(minute=0) + timedelta(hours=3)
    points = await Past(pool, Versions()).history("heat", START + timedelta(hours=9), from_=from_, to=to, bucket="hour")
    assert [(point.start.hour, point.views) for point in points] == [(22, 1), (23, 1)]
