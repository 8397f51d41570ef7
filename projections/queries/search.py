"""Films by what a person types, mistakes and all."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from elasticsearch import AsyncElasticsearch

from projections.queries.versions import Versions
from projections.sinks.elasticsearch import index_name, reaching_elasticsearch
from projections.spelling import folded

MAX_QUERY_WORDS = 16
MAX_WORD_LETTERS = 64  # what is longer is no word, and looking for its misspellings takes seconds
FACETS = ("content_type", "genre")
FACET_SIZE = 50
# Two letters must be right; up to five may have one mistake, more letters two. Of three words or more, one may be another word altogether.
WITH_MISTAKES = {
    "fuzziness": "AUTO:3,6",
    "prefix_length": 0,
    "fuzzy_transpositions": True,
    "max_expansions": 100,
    "minimum_should_match": "2<-1 5<70%",
}
MOST_RESULTS = 10_000  # Elasticsearch refuses to page any further
TEXTS = ("title", "show_title", "description")
EXCERPT_WORDS = 30
FIELDS = ("title_folded^4", "show_title_folded^3", "description_folded")


class Found(NamedTuple):
    """A film that matches, and its texts with the matching words in <mark>; everything else in them is escaped HTML."""

    video_id: str
    highlight: Mapping[str, Sequence[str]]


class Results(NamedTuple):
    """A page of what was found. Each facet counts over all that matches but for its own filter."""

    total: int
    items: list[Found]
    facets: Mapping[str, Mapping[str, int]]


class Suggestion(NamedTuple):
    """A title that begins with what was typed."""

    text: str
    video_id: str


class Search:
    """Reads the index. Raises StoreUnavailable when Elasticsearch is down."""

    def __init__(self, client: AsyncElasticsearch, prefix: str, versions: Versions) -> None:
        self._client = client
        self._prefix = prefix
        self._versions = versions

    @property
    def _index(self) -> str:
        return index_name(self._prefix, "search", self._versions.active("search").number)

    async def films(
        self, query: str, *, content_type: str | None = None, genre: str | None = None, limit: int, offset: int
    ) -> Results:
        """Films whose title, show or description holds the words of `query`, each with up to two mistakes; all films for no words.

        Only the first 10,000 can be paged through: a page beyond them is empty.
        """
        filters = {"content_type": content_type, "genre": genre}
        terms = {name: {"term": {name: value}} for name, value in filters.items() if value is not None}
        with reaching_elasticsearch():
            answer = await self._client.search(
                index=self._index,
                query={"bool": {"must": [_matching(query)], "filter": [_is_shown()]}},
                post_filter={"bool": {"filter": list(terms.values())}} if terms else None,
                aggs={name: _facet(name, terms) for name in FACETS},
                highlight=_highlight(query),
                source_includes=list(TEXTS),
                sort=["_score", {"uploaded_at": "desc"}, {"video_id": "asc"}],
                from_=min(offset, MOST_RESULTS),
                size=max(0, min(limit, MOST_RESULTS - offset)),
                track_total_hits=True,
            )
        hits = answer["hits"]
        items = [Found(hit["_id"], _marked(hit)) for hit in hits["hits"]]
        facets = {
            name: {bucket["key"]: bucket["doc_count"] for bucket in answer["aggregations"][name]["values"]["buckets"]}
            for name in FACETS
        }
        return Results(hits["total"]["value"], items, facets)

    async def suggest(self, typed: str, limit: int) -> list[Suggestion]:
        """Titles and shows that hold the words typed, the last of them perhaps not yet whole."""
        words = _words(typed)
        if not words:
            return []
        prefix = {
            "multi_match": {
                "query": words,
                "type": "bool_prefix",
                "operator": "and",
                "fields": ["title_folded^2", "show_title_folded"],
                "fuzziness": "AUTO",
                "prefix_length": 1,
            }
        }
        with reaching_elasticsearch():
            answer = await self._client.search(
                index=self._index,
                query={"bool": {"must": [prefix], "filter": [_is_shown()]}},
                source_includes=["title"],
                sort=["_score", {"uploaded_at": "desc"}],
                size=limit,
            )
        return [Suggestion(hit["_source"]["title"], hit["_id"]) for hit in answer["hits"]["hits"]]

    async def refresh(self) -> None:
        """What is written is found from now on."""
        with reaching_elasticsearch():
            await self._client.indices.refresh(index=self._index)


def _words(query: str) -> str:
    return " ".join(word[:MAX_WORD_LETTERS] for word in folded(query).split()[:MAX_QUERY_WORDS])


def _is_shown() -> dict[str, Any]:
    return {"bool": {"filter": [{"exists": {"field": "uploaded_at"}}], "must_not": [{"term": {"deleted": True}}]}}


def _matching(query: str) -> dict[str, Any]:
    """Exact words first, then the beginning of one, then words with mistakes."""
    words = _words(query)
    if not words:
        return {"match_all": {}}

    def by(boost: float, **how: Any) -> dict[str, Any]:
        return {"multi_match": {"query": words, "fields": list(FIELDS), "boost": boost, **how}}

    return {
        "bool": {
            "should": [
                {"term": {"title_folded.whole": {"value": words, "boost": 20}}},
                by(6, type="phrase"),
                by(4, type="cross_fields", operator="and"),
                # A beginning scores the same however rare it is, a mistake more for a rare word: hence so far apart.
                by(4, type="bool_prefix", operator="and"),
                by(0.25, type="best_fields", **WITH_MISTAKES),
                {"match": {"everything_folded": {"query": words, "boost": 0.1, **WITH_MISTAKES}}},
            ],
            "minimum_should_match": 1,
        }
    }


def _facet(name: str, terms: Mapping[str, Any]) -> dict[str, Any]:
    others = [term for other, term in terms.items() if other != name]
    return {
        "filter": {"bool": {"filter": others}},
        "aggs": {"values": {"terms": {"field": name, "size": FACET_SIZE}}},
    }


def _highlight(query: str) -> dict[str, Any] | None:
    if not _words(query):
        return None
    return {
        "encoder": "html",
        "pre_tags": ["<mark>"],
        "post_tags": ["</mark>"],
        "number_of_fragments": 0,
        # Words that only together with another field's make a match are marked as well.
        "require_field_match": False,
        "fields": {f"{name}_folded": {} for name in TEXTS},
    }


def _marked(hit: Mapping[str, Any]) -> dict[str, list[str]]:
    """The matching words in the texts as they were written, a long description cut around the first of them."""
    marked = {}
    for name in TEXTS:
        original, found = hit["_source"].get(name), hit.get("highlight", {}).get(f"{name}_folded")
        if original and found:
            words = _moved_marks(original, found[0])
            marked[name] = [" ".join(_excerpt(words) if name == "description" else words)]
    return marked


def _moved_marks(original: str, folded_and_marked: str) -> list[str]:
    """The words of `original` as escaped HTML. The index knows the folded text, so marks move over word by word."""
    words, marks = original.split(), folded_and_marked.split()
    if len(words) != len(marks):
        return marks
    return [
        f"<mark>{html.escape(word)}</mark>" if "<mark>" in mark else html.escape(word)
        for word, mark in zip(words, marks, strict=True)
    ]


def _excerpt(words: Sequence[str]) -> Sequence[str]:
    first = next((index for index, word in enumerate(words) if "<mark>" in word), 0)
    start = max(0, first - EXCERPT_WORDS // 3)
    excerpt = words[start : start + EXCERPT_WORDS]
    return [*(["…"] if start else []), *excerpt, *(["…"] if start + EXCERPT_WORDS < len(words) else [])]
