"""The published schemas say what the models say, and accept what the models write."""

from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import orjson
import pytest
import yaml

from schemas.__main__ import PUBLISHED, json_schema, stale_files
from schemas.envelope import decode
from schemas.events import EVENTS, Event
from tests.records import Kept

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_records() -> list[Path]:
    return sorted(GOLDEN.glob("*.json"))


def test_the_published_files_are_fresh() -> None:
    assert stale_files() == []


def test_a_missing_or_strange_file_is_named(tmp_path: Path) -> None:
    tmp_path.joinpath("strange.json").write_text("{}")
    assert "strange.json" in stale_files(tmp_path)
    assert "asyncapi.yaml" in stale_files(tmp_path)


def test_every_event_is_a_message_of_its_channel() -> None:
    document = yaml.safe_load(PUBLISHED.joinpath("asyncapi.yaml").read_text())
    for name, event in EVENTS.items():
        assert name in document["channels"][event.topic]["messages"]
        assert document["components"]["messages"][name]["payload"]["schema"] == json_schema(event)


def test_every_version_ever_shipped_has_its_golden_bytes() -> None:
    assert EVENTS.keys() <= {path.stem for path in golden_records()}


@pytest.mark.parametrize("path", golden_records(), ids=lambda path: path.stem)
def test_golden_bytes_are_still_read(path: Path) -> None:
    """Each file holds topic, key, headers and value as they were produced, and the event that they must mean today."""
    golden = orjson.loads(path.read_bytes())

    headers = [(name, value.encode()) for name, value in golden["headers"].items()]
    event = decode(Kept(golden["key"].encode(), golden["value"].encode(), headers), golden["topic"]).event
    assert orjson.loads(event.model_dump_json(exclude_none=True)) == golden["means"]
    jsonschema.validate(orjson.loads(golden["value"]), json_schema(type(event)))


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.type)
def test_a_schema_refuses_data_without_its_key(event: type[Event]) -> None:
    with pytest.raises(jsonschema.ValidationError, match=event.key_field):
        jsonschema.validate({"occurred_at": datetime.now(UTC).isoformat()}, json_schema(event))
