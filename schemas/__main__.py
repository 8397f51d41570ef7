"""`python -m schemas` writes `schemas/published/`: a JSON Schema an event, and `asyncapi.yaml`; with `--check` it only compares."""

import sys
from pathlib import Path
from typing import Any

import orjson
import yaml

from schemas.events import EVENTS, Event
from schemas.streams import Streams, streams

PUBLISHED = Path(__file__).parent / "published"
ASYNCAPI_VERSION = "3.0.0"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
BOUNDS_OF_TIME = {"description": "RFC 3339 with an offset, in the years 1970 to 2099"}


def json_schema(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the event's data."""
    schema = event.model_json_schema()
    for properties in (schema["properties"], *(d.get("properties", {}) for d in schema.get("$defs", {}).values())):
        for field in properties.values():
            if field.get("format") == "date-time":
                field.update(BOUNDS_OF_TIME)
    return {"$schema": JSON_SCHEMA, "$id": f"{event.type}.json", **schema}


def asyncapi(map_of_system: Streams) -> dict[str, Any]:
    """The AsyncAPI 3 document: each topic as a channel, each event as a message, and how to key and partition it."""
    channels, operations, messages = {}, {}, {}
    for name, topic in map_of_system.topics.items():
        events = [event for event in EVENTS.values() if event.topic == name]
        channels[name] = {
            "address": name,
            "title": name.capitalize(),
            "description": (
                f"Keyed by `{topic.key}`, {topic.partitions} partitions by murmur2 of the key "
                "(kcat and librdkafka: `-X partitioner=murmur2_random`), kept for ever, stamped by the broker."
            ),
            "messages": {event.type: {"$ref": f"#/components/messages/{event.type}"} for event in events},
            "bindings": {"kafka": {"topic": name, "partitions": topic.partitions}},
        }
        reference = {"$ref": f"#/channels/{name}"}
        references = [{"$ref": f"#/channels/{name}/messages/{event.type}"} for event in events]
        operations[f"fold_{name}"] = {
            "action": "receive",
            "channel": reference,
            "summary": f"The projections fold the events of {name}; any service may produce them.",
            "messages": references,
        }
        for event in events:
            messages[event.type] = _message(event)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "EntertainmentTime events",
            "version": "1.0.0",
            "description": (
                "CloudEvents 1.0 on Kafka, binary mode (`ce_*` headers, `content-type: application/json`, the data as value) or "
                "structured mode (`content-type: application/cloudevents+json`, the envelope as value). The Kafka key is the id "
                "named by each channel; a record with another key, or on another partition, is parked. Unknown fields are ignored."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "messageTraits": {"cloudevent": _CLOUDEVENT}},
    }


def _message(event: type[Event]) -> dict[str, Any]:
    key_schema = event.model_json_schema()["properties"][event.key_field]
    return {
        "name": event.type,
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudevent"}],
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            # Inlined, so that the document is whole wherever it is served.
            "schema": json_schema(event),
        },
        "bindings": {"kafka": {"key": {k: v for k, v in key_schema.items() if k in ("type", "pattern")}}},
    }


_CLOUDEVENT = {
    "headers": {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": {"type": "string", "minLength": 1, "maxLength": 512},
            "ce_source": {"type": "string", "minLength": 1, "maxLength": 512},
            "ce_type": {"type": "string", "enum": sorted(EVENTS)},
            "ce_time": {"type": "string", "format": "date-time"},
            "ce_recordedtime": {
                "type": "string",
                "format": "date-time",
                "description": "the original append time, written by who copies a topic; rules prefer it to the broker's stamp",
            },
        },
    }
}


def published_files() -> dict[str, bytes]:
    """Every published file by its name."""
    files = {
        f"{event.type}.json": orjson.dumps(json_schema(event), option=orjson.OPT_INDENT_2) + b"\n"
        for event in EVENTS.values()
    }
    files["asyncapi.yaml"] = yaml.safe_dump(
        asyncapi(streams()), sort_keys=False, width=120, allow_unicode=True
    ).encode()
    return files


def stale_files(folder: Path = PUBLISHED) -> list[str]:
    """The names of files that are missing, differ from what the models say, or belong to no model."""
    expected = published_files()
    found = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def main(arguments: list[str]) -> int:
    stale = stale_files()
    if "--check" in arguments:
        if stale:
            print(
                f"schemas/published is not what the models say: {', '.join(stale)}; run python -m schemas",
                file=sys.stderr,
            )
        return 1 if stale else 0
    PUBLISHED.mkdir(exist_ok=True)
    expected = published_files()
    for name in stale:
        if name in expected:
            (PUBLISHED / name).write_bytes(expected[name])
        else:
            (PUBLISHED / name).unlink()
        print(f"wrote {name}" if name in expected else f"removed {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
