"""`asyncapi.yaml` against AsyncAPI's own schema, and against itself: what it names is there, and its examples are what it allows."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway import documents
from schemas.events import EVENTS
from schemas.publishing import PUBLISHED
from schemas.streams import streams

OFFICIAL = Path(__file__).parents[2] / "node_modules/@asyncapi/specs/schemas/3.0.0.json"
DOCUMENT: dict[str, Any] = yaml.safe_load(PUBLISHED.joinpath("asyncapi.yaml").read_text())
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(orjson.loads(OFFICIAL.read_bytes()))


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for item in node for found in references(item)] if isinstance(node, list) else []


def test_the_document_is_valid_by_the_schema_of_asyncapi(official: jsonschema.Draft7Validator) -> None:
    assert [error.message for error in official.iter_errors(DOCUMENT)] == []


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("operations", "fold_views", "action"), "fold"),
        (("channels", "views", "bindings", "kafka", "partitions"), "many"),
        (("components", "messages", "entertainmenttime.video.viewed.v1", "payload", "type"), "record"),
        (("servers", "kafka", "host"), 7),
    ],
)
def test_the_schema_of_asyncapi_refuses_what_is_wrong(
    official: jsonschema.Draft7Validator, path: tuple[str, ...], wrong: Any
) -> None:
    document = node = copy.deepcopy(DOCUMENT)
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = wrong
    assert not official.is_valid(document)


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 2 * len(EVENTS)
    for reference in found:
        node = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            assert name in node, reference
            node = node[name]


def test_every_topic_is_a_channel_with_its_key_and_partitions() -> None:
    assert DOCUMENT["channels"].keys() == streams().topics.keys()
    for name, topic in streams().topics.items():
        channel = DOCUMENT["channels"][name]
        assert channel["bindings"]["kafka"]["partitions"] == topic.partitions
        assert channel["messages"].keys() == {event.type for event in EVENTS.values() if event.topic == name}
        for event_type in channel["messages"]:
            assert MESSAGES[event_type]["payload"]["x-key"] == topic.key


@pytest.mark.parametrize("event_type", EVENTS)
def test_every_message_has_an_example_that_it_allows(event_type: str) -> None:
    message = MESSAGES[event_type]
    for example in message["examples"]:
        jsonschema.Draft7Validator(message["payload"]).validate(example["payload"])
        headers = DOCUMENT["components"]["messageTraits"]["cloudevent"]["headers"]
        jsonschema.Draft7Validator(headers).validate(example["headers"])
        assert example["headers"]["ce_type"] == event_type
        assert isinstance(example["payload"][message["payload"]["x-key"]], str)


async def test_the_gateway_serves_the_document_and_the_schema_of_every_event() -> None:
    app = web.Application()
    app.add_routes(
        [web.get("/asyncapi.yaml", documents.asyncapi), web.get("/schemas/{name}.json", documents.json_schema)]
    )
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/asyncapi.yaml")
        assert yaml.safe_load(await answer.text()) == DOCUMENT
        for event_type in EVENTS:
            answer = await client.get(f"/schemas/{event_type}.json")
            assert answer.content_type == "application/schema+json"
            assert (await answer.json(content_type=None))["$id"] == f"{event_type}.json"
