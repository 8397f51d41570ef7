"""What the sink in Elasticsearch promises beyond the contract of all sinks."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agents.folding import Folding
from agents.handover import Batch, Partition
from compose.connections import open_elasticsearch
from compose.settings import Settings
from projections.changes import Increment, Remove, Upsert
from projections.queries.checkpoints import ElasticsearchCheckpoints
from projections.search import search
from projections.sinks.elasticsearch import ElasticsearchSink
from projections.sinks.sink import ChangeRefused, CheckpointMoved, LogIdentity, StoreUnavailable
from schemas.envelope import encode
from schemas.log import Place
from tests.folding import OneWindow
from tests.given import announced, recorded
from tests.parking_lot import Lot, NoDecisions
from tests.records import kept

pytestmark = pytest.mark.usefixtures("elasticsearch")

LOG = LogIdentity("cluster", "topic", 6)
START = Place("videos", 0, 0)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Any]:
    async with open_elasticsearch(settings) as opened:
        yield opened


@pytest.fixture
async def sink(client: Any, settings: Settings) -> AsyncIterator[ElasticsearchSink]:
    """An index, ready for its first batch."""
    made = ElasticsearchSink(client, search, settings.prefix)
    await made.prepare()
    await made.checkpoint("videos", 0, LOG)
    yield made
    await made.drop()


def film(video: str, **values: object) -> Upsert:
    return Upsert("videos", {"video_id": video}, values)


async def document(client: Any, settings: Settings, video: str) -> Any:
    found = await client.options(ignore_status=404).get(index=f"{settings.prefix}search.v1", id=video)
    return found.get("_source")


async def test_only_the_change_that_the_index_refuses_is_named_and_nothing_moves(sink: ElasticsearchSink) -> None:
    good, bad = film("good", title="Heat"), film("bad", uploaded_at="no date")
    with pytest.raises(ChangeRefused) as refused:
        await sink.apply([good, bad], expected=START, next_offset=2)
    assert refused.value.changes == [bad]
    assert (await sink.checkpoint("videos", 0, LOG)).place == START


async def test_what_was_written_beside_a_refused_change_stays_right_when_the_batch_goes_in_parts(
    sink: ElasticsearchSink, client: Any, settings: Settings
) -> None:
    first, bad, second = film("good", title="Heat"), film("bad", uploaded_at="no date"), film("good", title="Ran")
    with pytest.raises(ChangeRefused):
        await sink.apply([first, bad, second], expected=START, next_offset=3)
    await sink.apply([first], expected=START, next_offset=1)
    await sink.apply([], expected=START._replace(offset=1), next_offset=2)
    await sink.apply([second], expected=START._replace(offset=2), next_offset=3)
    assert (await document(client, settings, "good"))["title"] == "Ran"


@pytest.mark.parametrize("change", [Increment("videos", {"video_id": "a"}), Remove("videos", {"video_id": "a"})])
async def test_what_would_not_be_the_same_twice_is_a_bug_and_not_written(
    sink: ElasticsearchSink, change: Increment | Remove
) -> None:
    with pytest.raises(TypeError):
        await sink.apply([change], expected=START, next_offset=1)


async def test_a_register_keeps_its_greatest_whatever_the_order(
    sink: ElasticsearchSink, client: Any, settings: Settings
) -> None:
    newer, older = film("a", title="newer", stage=2), film("a", title="older", stage=1)
    changes = [change._replace(newest_by="stage") for change in (newer, older)]
    await sink.apply(changes[:1], expected=START, next_offset=1)
    await sink.apply(changes[1:], expected=START._replace(offset=1), next_offset=2)
    assert (await document(client, settings, "a"))["title"] == "newer"


async def test_many_films_go_in_one_batch(sink: ElasticsearchSink, client: Any, settings: Settings) -> None:
    films = recorded([announced(f"film-{n}", f"Film {n}") for n in range(1_000)])
    await sink.apply(list(search.fold(films)), expected=START, next_offset=1_000)
    assert (await document(client, settings, "film-999"))["title_folded"] == "film 999"
    checkpoints = ElasticsearchCheckpoints(client, settings.prefix, "search", version=1)
    assert await checkpoints.next_offsets([("videos", 0)]) == {("videos", 0): 1_000}


class BusyOnce:
    """A client of a server that is too busy for one film of the first bulk, and writes the others."""

    def __init__(self, client: Any, film: str) -> None:
        self._client = client
        self._film: str | None = film

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def bulk(self, *, index: str, operations: Sequence[Any]) -> Any:
        pairs = list(zip(operations[::2], operations[1::2], strict=True))
        written = [part for pair in pairs if pair[0]["index"]["_id"] != self._film for part in pair]
        answer = await self._client.bulk(index=index, operations=written)
        busy = {"_id": self._film, "status": 429, "error": {"type": "es_rejected_execution_exception"}}
        refused = [{"index": busy}] if self._film else []
        self._film = None
        return {"items": [*answer["items"], *refused]}


async def folding_films(sink: Any, lot: Lot, genres: Sequence[str | None]) -> None:
    """A batch of films, one of each genre, as a worker folds it."""
    messages = [
        encode(announced(f"film-{n}", genre=genre), event_id=str(n), source="/tests") for n, genre in enumerate(genres)
    ]
    records = [kept(message, partition=0, offset=offset) for offset, message in enumerate(messages)]
    folding = Folding(search, sink, lot, OneWindow(), {"videos": 1}, NoDecisions())
    await folding.fold(Batch(1, Partition("videos", 0), 0, len(records), records))


async def films_in(client: Any, settings: Settings) -> int:
    index = f"{settings.prefix}search.v1"
    await client.indices.refresh(index=index)
    return int((await client.count(index=index))["count"])


async def test_of_500_films_the_one_that_the_index_refuses_is_parked_and_the_others_are_written(
    client: Any, settings: Settings
) -> None:
    index = f"{settings.prefix}search.v1"
    # As a mapping that another release made: it takes no genre that is no number.
    mappings = {"properties": {"video_id": {"type": "keyword"}, "genre": {"type": "integer"}}, "dynamic": False}
    await client.indices.create(index=index, mappings=mappings)
    sink, lot = ElasticsearchSink(client, search, settings.prefix), Lot()
    await sink.checkpoint("videos", 0, LOG)
    await folding_films(sink, lot, [None] * 333 + ["Crime"] + [None] * 166)
    assert [(parked.place.offset, parked.reason) for parked in lot.parked] == [(333, "refused-by-store")]
    assert await films_in(client, settings) == 499
    assert (await sink.checkpoint("videos", 0, LOG)).next_offset == 500
    await sink.drop()


async def test_of_500_films_the_one_that_the_server_is_too_busy_for_is_written_when_the_batch_comes_again(
    sink: ElasticsearchSink, client: Any, settings: Settings
) -> None:
    lot, busy = Lot(), ElasticsearchSink(BusyOnce(client, "film-333"), search, settings.prefix)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        await folding_films(busy, lot, [None] * 500)
    assert (await sink.checkpoint("videos", 0, LOG)).next_offset == 0
    assert await films_in(client, settings) == 499
    await folding_films(busy, lot, [None] * 500)
    assert await films_in(client, settings) == 500
    assert (await sink.checkpoint("videos", 0, LOG)).next_offset == 500
    assert lot.parked == []


async def test_an_emptied_server_is_folded_from_the_start(
    sink: ElasticsearchSink, client: Any, settings: Settings
) -> None:
    await sink.apply([film("a", title="Heat")], expected=START, next_offset=1)
    await sink.drop()
    with pytest.raises(CheckpointMoved):
        await sink.apply([film("a", genre="Crime")], expected=START._replace(offset=1), next_offset=2)
    assert (await sink.checkpoint("videos", 0, LOG)).place == START
    mapping = await client.indices.get_mapping(index=f"{settings.prefix}search.v1")
    assert mapping[f"{settings.prefix}search.v1"]["mappings"]["properties"]["genre"]["type"] == "keyword"


async def test_documents_lost_without_their_checkpoints_are_not_made_of_the_next_change_alone(
    sink: ElasticsearchSink, client: Any, settings: Settings
) -> None:
    await sink.apply([film("a", title="Heat")], expected=START, next_offset=1)
    await client.indices.delete(index=f"{settings.prefix}search.v1")
    with pytest.raises(StoreUnavailable):
        await sink.apply([film("a", genre="Crime")], expected=START._replace(offset=1), next_offset=2)
    assert not await client.indices.exists(index=f"{settings.prefix}search.v1")


async def test_a_projection_that_has_not_begun_is_at_zero(client: Any, settings: Settings) -> None:
    checkpoints = ElasticsearchCheckpoints(client, settings.prefix, "search", version=1)
    assert await checkpoints.next_offsets([("videos", 0)]) == {("videos", 0): 0}


async def test_a_server_that_is_down_is_unavailable_in_words(settings: Settings) -> None:
    elsewhere = settings.model_copy(
        update={"elasticsearch_url": type(settings.elasticsearch_url)("http://127.0.0.1:9")}
    )
    async with open_elasticsearch(elsewhere) as client:
        with pytest.raises(StoreUnavailable, match="elasticsearch is unavailable"):
            await ElasticsearchSink(client, search, "").prepare()
