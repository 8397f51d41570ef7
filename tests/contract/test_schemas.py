"""The published schemas say what the models say, accept what the models write, and every golden record is read for ever."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event, to_structured_event
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.envelope import decode
from schemas.events import EVENTS, Event
from schemas.golden import Golden, goldens
from schemas.publishing import committed_schemas, json_schema, stale_files
from tests.given import as_model
from tests.records import Kept

GOLDEN = goldens()
each_golden = pytest.mark.parametrize("golden", GOLDEN, ids=[golden.name for golden in GOLDEN])


def as_data(event: Event) -> Any:
    """The event's data as JSON holds them."""
    return orjson.loads(as_model(event).model_dump_json(exclude_none=True))


def test_a_missing_or_strange_file_is_named(tmp_path: Path) -> None:
    tmp_path.joinpath("strange.json").write_text("{}")
    assert stale_files({"asyncapi.yaml": b""}, tmp_path) == ["asyncapi.yaml", "strange.json"]


@each_golden
def test_golden_bytes_still_mean_the_same(golden: Golden) -> None:
    headers = [(name, value.encode()) for name, value in golden.headers.items()]
    assert (
        as_data(decode(Kept(golden.key.encode(), golden.value.encode(), headers), golden.topic).event) == golden.means
    )


@each_golden
def test_golden_bytes_mean_the_same_in_the_other_mode(golden: Golden) -> None:
    message = KafkaMessage(
        {name: value.encode() for name, value in golden.headers.items()}, golden.key.encode(), golden.value.encode()
    )
    other = (to_binary_event if golden.structured else to_structured_event)(from_kafka_event(message))
    kept = Kept(golden.key.encode(), other.value, list(other.headers.items()))
    assert as_data(decode(kept, golden.topic).event) == golden.means


@each_golden
def test_the_schema_that_was_published_accepts_the_golden_bytes(golden: Golden) -> None:
    jsonschema.validate(golden.data, committed_schemas()[golden.type])


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.type)
def test_a_schema_refuses_data_without_its_key(event: type[Event]) -> None:
    with pytest.raises(jsonschema.ValidationError, match=event.key_field):
        jsonschema.validate({"occurred_at": datetime.now(UTC).isoformat()}, json_schema(event))


def test_the_schema_refuses_an_episode_without_its_show_as_the_model_does() -> None:
    episode = next(golden for golden in GOLDEN if golden.data.get("content_type") == "episode")
    schema = committed_schemas()[episode.type]
    for missing in ("show_title", "season_number", "episode_number"):
        assert not jsonschema.Draft202012Validator(schema).is_valid(episode.data | {missing: None})
        assert not jsonschema.Draft202012Validator(schema).is_valid(
            {field: value for field, value in episode.data.items() if field != missing}
        )


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.type)
def test_a_type_is_named_with_its_major_version(event: type[Event]) -> None:
    assert all(part.isidentifier() for part in event.type.split("."))
    assert event.type.rpartition(".v")[2].isdecimal()


def allowed(node: Any, root: Any) -> st.SearchStrategy[Any]:
    """What a schema allows, by those words of JSON Schema that the published ones use."""
    if "$ref" in node:
        return allowed(root["$defs"][node["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in node:
        return st.one_of([allowed(form, root) for form in node["anyOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node.get("type"):
        case "string" if node.get("format") == "date-time":
            bounds = (datetime.fromisoformat(node[word]) for word in ("formatMinimum", "formatExclusiveMaximum"))
            low, high = (bound.replace(tzinfo=None) for bound in bounds)
            return st.datetimes(low, high - timedelta(microseconds=1), timezones=st.just(UTC)).map(datetime.isoformat)
        case "string":
            # As a fullmatch, since `$` of Python also stands before a newline at the end.
            texts = st.from_regex(node["pattern"].removeprefix("^").removesuffix("$"), fullmatch=True)
            return texts.filter(lambda text: len(text.encode()) <= node.get("x-max-bytes", sys.maxsize))
        case "integer":
            return st.integers(node["minimum"], node["maximum"])
        case "number":
            return st.floats(node["minimum"], node["maximum"])
        case "array":
            return st.lists(allowed(node["items"], root), min_size=node["minItems"], max_size=node["maxItems"])
        case "object" if "properties" in node:
            fields = {name: allowed(field, root) for name, field in node["properties"].items()}
            required = {name: fields[name] for name in node["required"]}
            return st.fixed_dictionaries(required, optional={n: f for n, f in fields.items() if n not in required})
        case "object":
            return st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(-9, 9), max_size=3)
    return st.just(None)


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.type)
def test_whatever_a_published_schema_allows_is_an_event(event: type[Event]) -> None:
    """So no rule is hidden: who keeps to the schema is never parked."""
    schema = committed_schemas()[event.type]
    is_valid = jsonschema.Draft202012Validator(schema).is_valid

    @given(allowed(schema, schema).filter(is_valid))
    @hypothesis_settings(max_examples=25, suppress_health_check=list(HealthCheck))
    def is_an_event(data: Any) -> None:
        event.model_validate_json(orjson.dumps(data))

    is_an_event()
