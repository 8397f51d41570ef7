"""The verdict on a changed schema, against every document of a small world, validated by an implementation of JSON Schema."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas.compatibility import Schema, changes
from schemas.events import VideoViewed
from schemas.publishing import json_schema

WORDS = ["movie", "episode", "short"]
# Each bound below has values on both sides of it here.
VALUES: list[Any] = [
    *(None, *range(-1, 7), 2.5, *WORDS),
    *("a" * length for length in range(6)),
    [],
    *([value] * length for value in range(-1, 7) for length in range(1, 6)),
]


@st.composite
def ranges(draw: st.DrawFn, lower: str, upper: str, *, least: int = 0) -> dict[str, int]:
    """Bounds, either of them perhaps none, with room for a value between them."""
    low = draw(st.none() | st.integers(least, 3))
    high = draw(st.none() | st.integers(3, 4))
    return {word: bound for word, bound in ((lower, low), (upper, high)) if bound is not None}


integers = ranges("minimum", "maximum").map(lambda bounds: {"type": "integer", **bounds})
numbers = ranges("minimum", "maximum").map(lambda bounds: {"type": "number", **bounds})
texts = ranges("minLength", "maxLength", least=1).map(lambda bounds: {"type": "string", **bounds})
enums = st.lists(st.sampled_from(WORDS), min_size=1, unique=True).map(lambda words: {"type": "string", "enum": words})
lists = st.builds(
    lambda bounds, items: {"type": "array", **bounds, "items": items},
    ranges("minItems", "maxItems", least=1),
    integers,
)
KINDS = [integers, numbers, texts, enums, lists]


def perhaps_null(kind: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return kind | kind.map(lambda field: {"anyOf": [field, {"type": "null"}]})


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Schema, Schema]:
    """A schema with one field, and what it might become: of the same kind, so that the bounds decide."""
    kind = perhaps_null(draw(st.sampled_from(KINDS)))
    return draw(schemas(kind)), draw(schemas(kind))


@st.composite
def schemas(draw: st.DrawFn, kind: st.SearchStrategy[dict[str, Any]]) -> Schema:
    if draw(st.integers(0, 9)) == 0:
        return {"type": "object", "properties": {}}
    required = {"required": ["x"]} if draw(st.booleans()) else {}
    return {"type": "object", "properties": {"x": draw(kind)}, **required}


def documents(schema: Schema) -> Iterator[dict[str, Any]]:
    """Every document of the small world that is valid, of fields that the schema names."""
    accepts = Draft202012Validator(schema).is_valid
    every = [{}, *({"x": value} for value in VALUES)] if schema["properties"] else [{}]
    return (document for document in every if accepts(document))


def types_of(schema: Schema) -> set[str]:
    field = schema["properties"]["x"]
    return {form["type"] for form in field.get("anyOf", [field])}


def loses_records(old: Schema, new: Schema) -> bool:
    """A record of the log would be refused, or a field in it not be read any more."""
    accepts = Draft202012Validator(new).is_valid
    return any(not accepts(document) or document.keys() - new["properties"].keys() for document in documents(old))


def surprises_readers(old: Schema, new: Schema) -> bool:
    """A reader of today would miss a field that it relies on, or find it in another type."""
    if not (old["properties"] and new["properties"]):
        return False
    return ("required" in old and "required" not in new) or types_of(old) != types_of(new)


@given(pairs())
@example(({"type": "object", "properties": {}}, {"type": "object", "properties": {"x": {}}, "required": ["x"]}))
def test_a_change_breaks_exactly_where_records_are_lost_or_readers_surprised(pair: tuple[Schema, Schema]) -> None:
    old, new = pair
    breaks = any(change.breaks for change in changes(old, new))
    assert breaks == (loses_records(old, new) or surprises_readers(old, new))


anything = perhaps_null(st.one_of(KINDS))


@given(schemas(anything), schemas(anything))
def test_whatever_a_field_becomes_nothing_is_lost_unseen(old: Schema, new: Schema) -> None:
    if not any(change.breaks for change in changes(old, new)):
        assert not loses_records(old, new)
        assert not surprises_readers(old, new)


@given(pairs())
def test_what_is_nested_in_a_list_of_objects_is_judged_alike(pair: tuple[Schema, Schema]) -> None:
    def nested(schema: Schema) -> Schema:
        variants = {"type": "array", "items": {"$ref": "#/$defs/V"}}
        return {"$defs": {"V": schema}, "type": "object", "properties": {"v": variants}}

    flat, deep = changes(*pair), changes(nested(pair[0]), nested(pair[1]))
    assert sorted(f"v[].{change.field}" for change in flat) == sorted(change.field for change in deep)
    assert {change.what for change in flat} == {change.what for change in deep}


@given(pairs())
def test_where_nothing_is_told_both_take_the_same_documents(pair: tuple[Schema, Schema]) -> None:
    old, new = pair
    if not changes(old, new):
        assert list(documents(old)) == list(documents(new))


@given(pairs())
def test_what_only_adds_an_optional_field_is_read_by_the_readers_of_today(pair: tuple[Schema, Schema]) -> None:
    old, new = pair
    if all(change.what == "is new and optional" for change in changes(old, new)):
        assert all(map(Draft202012Validator(old).is_valid, documents(new)))


def changed(**fields: Any) -> list[tuple[str, str, bool]]:
    """What the check says of `video.viewed` with some fields changed, a field of None removed."""
    schema = json_schema(VideoViewed)
    properties = {name: field for name, field in (schema["properties"] | fields).items() if field is not None}
    return [tuple(change) for change in changes(schema, {**schema, "properties": properties})]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "where", "words"),
    [
        ({"session_id": None}, "session_id", "was removed"),
        ({"video_id": {"type": "integer"}}, "video_id", "was string and is now integer"),
        ({"video_id": {"type": "string", "pattern": "^x$"}}, "video_id", "became ^x$, and no program can tell"),
        ({"occurred_at": {"type": "string"}}, "occurred_at", "format date-time became (none)"),
    ],
)
def test_a_break_is_told_with_the_field(fields: dict[str, Any], where: str, words: str) -> None:
    assert any(field == where and words in what and breaks for field, what, breaks in changed(**fields))


def test_another_meaning_of_an_absent_field_breaks() -> None:
    field = json_schema(VideoViewed)["properties"]["watched_seconds"]
    told = "stood for (none) where it is absent, and stands for 0"
    assert changed(watched_seconds={**field, "default": 0}) == [("watched_seconds", told, True)]


def test_another_topic_and_another_key_break() -> None:
    schema = json_schema(VideoViewed)
    moved = changes(schema, {**schema, "x-topic": "plays", "x-key": "video_id"})
    assert {change.what.split(" ")[0] for change in moved if change.breaks} == {"x-topic", "x-key"}


def test_words_for_people_are_no_change() -> None:
    schema = json_schema(VideoViewed)
    assert changes(schema, {**schema, "title": "Seen", "description": "Somebody watched."}) == []
