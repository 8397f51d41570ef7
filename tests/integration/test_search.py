"""Films are found by what a person types, mistakes and all."""

import itertools
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from compose.connections import open_elasticsearch
from projections.queries.search import Results, Search
from projections.queries.versions import Versions
from projections.search import search
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.sink import LogIdentity
from schemas.events import Event
from tests.given import announced, deleted, recorded, uploaded
from tests.servers import Servers

pytestmark = [pytest.mark.usefixtures("elasticsearch"), pytest.mark.asyncio(loop_scope="module")]

FILMS: list[Event] = [
    announced(
        "glacier", "The Glacier Expedition", genre="Adventure", description="A crew <crosses> the ice & returns."
    ),
    announced("glass", "Glass", genre="Drama"),
    announced("amelie", "Le Fabuleux Destin d'Amélie Poulain", genre="Comedy"),
    announced("lodz", "Łódź by Night", content_type="documentary", genre="Drama"),
    announced(
        "pilot",
        "Pilot",
        content_type="episode",
        show_title="Northern Lights",
        season_number=1,
        episode_number=1,
        genre="Drama",
    ),
    announced("heat", "Heat", genre="Crime", description=" ".join(["word"] * 200 + ["Heist"] + ["word"] * 200)),
    announced("heater", "The Heater", genre="Comedy"),
    announced("meat", "Meat", genre="Horror"),
    announced("waiting", "Glacier without a file"),
    announced("gone", "Glacier that was deleted"),
]
UPLOADED = ("glacier", "glass", "amelie", "lodz", "pilot", "heat", "heater", "meat", "gone")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def films(servers: Servers, elasticsearch: None) -> AsyncIterator[Search]:
    """The index that every test here asks and none writes."""
    settings = servers.settings(f"{servers.prefix}search_")
    async with open_elasticsearch(settings) as client:
        sink = ElasticsearchSink(client, search, settings.prefix)
        await sink.prepare()
        place = (await sink.checkpoint("videos", 0, LogIdentity("cluster", "topic", 6))).place
        events = [*FILMS, *(uploaded(video) for video in UPLOADED), deleted("gone")]
        changes = list(search.fold(recorded(events)))
        await sink.apply(changes, expected=place, next_offset=len(events), offsets=None)
        reads = Search(client, settings.prefix, Versions())
        await reads.refresh()
        yield reads
        await sink.drop()


def ids(results: Results) -> list[str]:
    return [item.video_id for item in results.items]


async def found(films: Search, query: str) -> Sequence[str]:
    return ids(await films.films(query, limit=20, offset=0))


@pytest.mark.parametrize(
    ("typed", "video"),
    [
        ("glacier expedition", "glacier"),
        ("glacer expedtion", "glacier"),
        ("galcier expeditoin", "glacier"),
        ("lgacier", "glacier"),
        ("expedishion", "glacier"),
        ("amelie poulain", "amelie"),
        ("AMÉLIE PULAIN", "amelie"),
        ("lodz", "lodz"),
        ("Lodz nigth", "lodz"),
        ("nothern lihgts", "pilot"),
        ("northern pilot", "pilot"),
        ("nothern pilto", "pilot"),
        ("crosses ice", "glacier"),
        ("expedition crew", "glacier"),
        ("glac", "glacier"),
    ],
)
async def test_a_film_is_found_first_by(films: Search, typed: str, video: str) -> None:
    assert (await found(films, typed))[0] == video


async def test_the_word_itself_goes_before_its_beginning_and_that_before_a_mistake(films: Search) -> None:
    assert await found(films, "heat") == ["heat", "heater", "meat"]


async def test_no_words_find_every_film(films: Search) -> None:
    results = await films.films("  ", limit=3, offset=0)
    assert (results.total, len(results.items)) == (8, 3)


async def test_pages_neither_repeat_nor_leave_out_a_film(films: Search) -> None:
    pages = [ids(await films.films("", limit=3, offset=offset)) for offset in (0, 3, 6)]
    assert sorted(itertools.chain(*pages)) == sorted(set(UPLOADED) - {"gone"})


@pytest.mark.parametrize("offset", [9_950, 10_000, 10**9])
async def test_a_page_beyond_all_that_can_be_paged_through_is_empty(films: Search, offset: int) -> None:
    results = await films.films("", limit=100, offset=offset)
    assert (results.total, results.items) == (8, [])


async def test_a_film_without_its_bytes_and_a_deleted_one_are_not_found(films: Search) -> None:
    assert not {"waiting", "gone"} & set(await found(films, "glacier"))


async def test_nonsense_finds_nothing(films: Search) -> None:
    assert await found(films, "qqqqqqqqqq") == []


@pytest.mark.parametrize("odd", ['"', "\\", "*:*", "title:heat AND (", "a" * 300, "ÿ" * 150, "-", "😀", "x " * 149])
async def test_what_looks_like_syntax_is_only_text(films: Search, odd: str) -> None:
    await films.films(odd, limit=5, offset=0)
    await films.suggest(odd, 5)


async def test_filters_hold_for_the_items_and_a_facet_ignores_its_own(films: Search) -> None:
    results = await films.films("", genre="Drama", content_type="movie", limit=10, offset=0)
    assert (results.total, ids(results)) == (1, ["glass"])
    assert results.facets["content_type"] == {"movie": 1, "documentary": 1, "episode": 1}
    assert results.facets["genre"] == {"Adventure": 1, "Drama": 1, "Comedy": 2, "Crime": 1, "Horror": 1}


async def test_matching_words_are_marked_in_the_text_as_it_was_written(films: Search) -> None:
    [film] = (await films.films("fabulex amelie", limit=1, offset=0)).items
    assert film.highlight["title"] == ["Le <mark>Fabuleux</mark> Destin <mark>d&#x27;Amélie</mark> Poulain"]


async def test_all_but_the_marks_is_escaped(films: Search) -> None:
    film = (await films.films("crosses", limit=1, offset=0)).items[0]
    assert film.highlight["description"] == ["A crew <mark>&lt;crosses&gt;</mark> the ice &amp; returns."]


async def test_a_long_description_is_cut_around_the_first_mark(films: Search) -> None:
    [film] = (await films.films("heist", limit=1, offset=0)).items
    [excerpt] = film.highlight["description"]
    assert "<mark>Heist</mark>" in excerpt
    assert (excerpt[:6], excerpt[-6:]) == ("… word", "word …")
    assert len(excerpt) < 300


@pytest.mark.parametrize(
    ("typed", "title"),
    [("gla", "Glass"), ("the gla", "The Glacier Expedition"), ("łód", "Łódź by Night"), ("north", "Pilot")],
)
async def test_what_is_being_typed_is_suggested(films: Search, typed: str, title: str) -> None:
    assert title in [suggestion.text for suggestion in await films.suggest(typed, 5)]


async def test_nothing_typed_suggests_nothing(films: Search) -> None:
    assert await films.suggest(" ", 5) == []
