"""The AsyncAPI 3 document: each topic as a channel, each event as a message, and how to key and partition it.

Payloads are written out as plain Schema Objects, with no reference inside them, so that every tool for AsyncAPI can read them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from . import __version__
from .compatibility import Schema
from .golden import Golden
from .streams import Streams
from .upcasters import UPCASTERS

ASYNCAPI_VERSION = "3.0.0"
KAFKA_BINDING = "0.5.0"  # of the Kafka bindings in the AsyncAPI specification
KEEP_FOR_EVER = -1

CLOUDEVENT = {
    "headers": {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": {
                "type": "string",
                "minLength": 1,
                "maxLength": 512,
                "description": "with `ce_source` the identity of the event: the same event sent again carries the same id",
            },
            "ce_source": {"type": "string", "minLength": 1, "maxLength": 512},
            "ce_type": {"type": "string"},
            "ce_time": {"type": "string", "format": "date-time"},
            "ce_recordedtime": {
                "type": "string",
                "format": "date-time",
                "description": "the original append time, written by who copies a topic; rules prefer it to the broker's stamp",
            },
            "content-type": {"type": "string", "const": "application/json"},
        },
    },
    "correlationId": {"location": "$message.header#/ce_id", "description": "the identity of the event"},
}


def asyncapi(map_of_system: Streams, schemas: Mapping[str, Schema], records: Iterable[Golden] = ()) -> dict[str, Any]:
    """The document. `schemas` holds the JSON Schema of each type that is read, `records` the examples."""
    examples = {record.type: record for record in records if not record.structured}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, topic in map_of_system.topics.items():
        types = [event_type for event_type, schema in schemas.items() if schema["x-topic"] == name]
        channels[name] = {
            "address": name,
            "title": name.capitalize(),
            "description": (
                f"Keyed by `{topic.key}`, {topic.partitions} partition{'s' * (topic.partitions > 1)} by murmur2 of the key "
                "(kcat and librdkafka: `-X partitioner=murmur2_random`), kept for ever, stamped by the broker."
            ),
            "servers": [{"$ref": "#/servers/kafka"}],
            "messages": {event_type: {"$ref": f"#/components/messages/{event_type}"} for event_type in types},
            "bindings": {
                "kafka": {
                    "topic": name,
                    "partitions": topic.partitions,
                    "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": KEEP_FOR_EVER},
                    "bindingVersion": KAFKA_BINDING,
                }
            },
        }
        operations |= _operations(name, types)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "EntertainmentTime events",
            "version": __version__,
            "description": (
                "CloudEvents 1.0 on Kafka, binary mode (`ce_*` headers, `content-type: application/json`, the data as value) or "
                "structured mode (`content-type: application/cloudevents+json`, the envelope as value). The Kafka key is the id "
                "named by each channel; a record with another key, or on another partition, is parked. Unknown fields are ignored."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{host}:{port}",
                "protocol": "kafka",
                "description": "The brokers; the default is the stack that `make up` starts.",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "19092"}},
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {name: _message(name, schema, examples.get(name)) for name, schema in schemas.items()},
            "messageTraits": {"cloudevent": CLOUDEVENT},
        },
    }


def _operations(name: str, types: list[str]) -> dict[str, Any]:
    shared = {
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{event_type}"} for event_type in types],
    }
    return {
        f"fold_{name}": {"action": "receive", "summary": f"The projections fold the events of {name}.", **shared},
        f"append_{name}": {"action": "send", "summary": f"The system appends its own events to {name}.", **shared},
    }


def _message(name: str, schema: Schema, example: Golden | None) -> dict[str, Any]:
    newer = UPCASTERS.get(name)
    summary = schema["description"].splitlines()[0]
    payload = _written_out(schema, schema)
    key = payload["properties"][schema["x-key"]]
    message = {
        "name": name,
        "title": schema["title"],
        "summary": f"Older than {newer.becomes}, and still read. {summary}" if newer else summary,
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudevent"}],
        "payload": {word: value for word, value in payload.items() if word not in ("$schema", "$id", "$defs")},
        "bindings": {
            "kafka": {
                "key": {word: key[word] for word in ("type", "pattern") if word in key},
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }
    if newer:
        message["tags"] = [{"name": "older"}]
    if example:
        message["examples"] = [{"headers": example.headers, "payload": orjson.loads(example.value)}]
    return message


def _written_out(node: Any, root: Schema) -> Any:
    """`node` with what its references lead to in their place."""
    if isinstance(node, dict):
        if "$ref" in node:
            node = root["$defs"][node["$ref"].removeprefix("#/$defs/")] | {k: v for k, v in node.items() if k != "$ref"}
        return {word: _written_out(value, root) for word, value in node.items()}
    return [_written_out(item, root) for item in node] if isinstance(node, list) else node
