"""What is published: a JSON Schema an event, and `asyncapi.yaml`. What was published once is a promise, and is kept."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from .asyncapi import asyncapi
from .compatibility import Change, Schema, changes
from .events import EVENTS, Event
from .golden import Golden
from .streams import Streams, Topic
from .upcasters import UPCASTERS

PUBLISHED = Path(__file__).parent / "published"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI = "asyncapi.yaml"


def json_schema(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the event's data; `x-topic` and `x-key` say where it lies in Kafka."""
    return {
        "$schema": JSON_SCHEMA,
        "$id": f"{event.type}.json",
        "x-topic": event.topic,
        "x-key": event.key_field,
        **event.model_json_schema(),
    }


def committed_schemas(folder: Path = PUBLISHED) -> dict[str, Schema]:
    """The published JSON Schemas by type, those of older versions among them."""
    return {path.stem: orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def committed_partitions(folder: Path = PUBLISHED) -> dict[str, int]:
    """The partition count of each topic, as it was published."""
    file = folder / ASYNCAPI
    channels = yaml.load(file.read_bytes(), _YAML)["channels"] if file.exists() else {}
    return {name: channel["bindings"]["kafka"]["partitions"] for name, channel in channels.items()}


def published_files(
    map_of_system: Streams, records: Collection[Golden], committed: Mapping[str, Schema]
) -> dict[str, bytes]:
    """Every published file by its name. The schema of an older version, which has no model, stays as it was committed."""
    schemas = {event.type: json_schema(event) for event in EVENTS.values()}
    older = {name: schema for name, schema in committed.items() if name in UPCASTERS}
    document = asyncapi(map_of_system, {**older, **schemas}, records)
    return {
        **{f"{name}.json": _json(schema) for name, schema in {**older, **schemas}.items()},
        ASYNCAPI: yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True).encode(),
    }


def stale_files(expected: Mapping[str, bytes], folder: Path = PUBLISHED) -> list[str]:
    """The names of files that are missing, differ from what the models say, or belong to no type."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def differences(committed: Mapping[str, Schema], proposed: Mapping[str, Schema]) -> dict[str, list[Change]]:
    """What `proposed` changes in each committed type; a type that vanished and has no upcaster breaks as a whole."""
    gone = Change("", "is no longer an event of this system, and its records are in the log", True)
    return {
        name: changes(schema, proposed[name]) if name in proposed else [gone]
        for name, schema in committed.items()
        if name in proposed or name not in UPCASTERS
    }


def broken_promises(
    committed: Mapping[str, Schema],
    proposed: Mapping[str, Schema],
    partitions: Mapping[str, int],
    topics: Mapping[str, Topic],
    shipped: Collection[str],
) -> list[str]:
    """A sentence for each break: the event, the field, what is wrong with it and the way out."""
    lost = [
        f"schemas/published/{name}.json is gone, and records of that type are in the log for ever: bring it back as it was"
        for name in sorted({*shipped} - committed.keys())
    ]
    broken = [
        f"{name}: {'; '.join(f'{change.field} {change.what}'.strip() for change in found)}. {_way_out(name)}"
        for name, every in differences(committed, proposed).items()
        if (found := [change for change in every if change.breaks])
    ]
    moved = [
        f"{name}: the topic {f'has {topics[name].partitions} partitions' if name in topics else 'is gone'} and was published "
        f"with {count}. Keys would lie elsewhere than their records: make a new topic, copy, and rebuild."
        for name, count in partitions.items()
        if name not in topics or topics[name].partitions != count
    ]
    return lost + broken + moved


def widenings(committed: Mapping[str, Schema], proposed: Mapping[str, Schema]) -> list[str]:
    """What is new and breaks nothing, in words."""
    return [
        f"{name}: {change.field} {change.what}"
        for name, found in differences(committed, proposed).items()
        for change in found
        if not change.breaks
    ]


def _way_out(name: str) -> str:
    return (
        f"Leave it as it is: give the change to a new type, {next_version(name)}, "
        "and add an upcaster to it in schemas/upcasters.py"
    )


def next_version(name: str) -> str:
    """`…viewed.v2` of `…viewed.v1`."""
    return re.sub(r"\.v(\d+)$", lambda version: f".v{int(version[1]) + 1}", name)


def _json(schema: Schema) -> bytes:
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2) + b"\n"


class _Plain(yaml.SafeDumper):
    """Says what is said twice twice: anchors are no friends of readers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
