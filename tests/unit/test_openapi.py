"""The HTTP document says what the routes do, all of it."""

import json
import re
from typing import Any

import pytest

from gateway.openapi import DESCRIBED, VARIABLE, document
from gateway.problems import MEDIA_TYPE
from gateway.routes import routes

API: dict[str, Any] = json.loads(document(routes()))
OPERATIONS = [
    (f"{method.upper()} {path}", operation) for path, item in API["paths"].items() for method, operation in item.items()
]


def named(path: str) -> str:
    return VARIABLE.sub(r"{\1}", path)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        inner = set().union(*map(references, value.values())) if value else set()
        return inner | ({value["$ref"]} if isinstance(value.get("$ref"), str) else set())
    return set().union(*map(references, value)) if isinstance(value, list) and value else set()


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    there = {f"{route.method} {named(route.path)}" for route in routes()}  # type: ignore[attr-defined]
    assert {name for name, _ in OPERATIONS} == there


def test_every_description_is_of_a_route() -> None:
    assert set(DESCRIBED) == {route.handler.__name__ for route in routes()}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_an_operation_has_a_summary_its_parameters_and_its_answers(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"].endswith((".", "?"))
    in_path = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", name))
    answers = operation["responses"]
    assert any(status.startswith("2") for status in answers)
    for status, answer in answers.items():
        if status in ("400", "404", "422"):
            assert list(answer["content"]) == [MEDIA_TYPE]


def test_every_reference_in_the_document_leads_somewhere() -> None:
    for reference in references(API):
        place: Any = API
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_the_document_bounds_what_the_gateway_bounds() -> None:
    k = next(p for p in API["paths"]["/api/analytics/top"]["get"]["parameters"] if p["name"] == "k")
    assert (k["schema"]["minimum"], k["schema"]["maximum"], k["schema"]["default"]) == (1, 1_000, 10)
