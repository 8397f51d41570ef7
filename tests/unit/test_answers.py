"""Strict JSON in and numbers in digits: what every reader would understand alike is taken, the rest is named."""

import json
from contextlib import suppress
from typing import Annotated

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from gateway.answers import MAX_DEPTH, Query, check_json, pointer, read_query, whole
from gateway.problems import Problem

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, plain, max_size=5)


class Counted(Query):
    k: Annotated[int, Field(ge=1, le=1_000), whole] = 10


def refusal(raw: bytes) -> str:
    with pytest.raises(Problem) as raised:
        check_json(raw)
    assert raised.value.status == 400
    return raised.value.detail


def counted(text: str) -> int:
    return read_query(make_mocked_request("GET", f"/?k={text}"), Counted).k


@given(objects)
def test_every_plain_object_is_taken(document: dict[str, object]) -> None:
    check_json(json.dumps(document).encode())
    check_json(json.dumps(document, ensure_ascii=False).encode())


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_be_refused(raw: bytes) -> None:
    with suppress(Problem):
        check_json(raw)
        assert isinstance(json.loads(raw), dict)


@given(objects, texts, plain)
def test_a_key_twice_is_refused_wherever_it_stands(document: dict[str, object], key: str, value: object) -> None:
    pair = f"{json.dumps(key)}: {json.dumps(value)}"
    outer = json.dumps({**document, "inner": "HERE"}).replace('"HERE"', "{" + pair + ", " + pair + "}")
    assert "more than once" in refusal(outer.encode())


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "-Infinity"),
        (b'{"a": 1e999}', "beyond all bounds"),
        (b'{"a": 9223372036854775808}', "64 bits"),
        (b'{"a": ' + b"9" * 60_000 + b"}", "64 bits"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "no JSON"),
        (b'{"a": 1', "no JSON"),
        (b'{"a": 1} x', "no JSON"),
        (b'{"a": 01}', "no JSON"),
        (b"", "no JSON"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"null", "object"),
        (b'{"a":' * 30_000, "nested"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested"),
    ],
)
def test_what_readers_would_take_differently_is_refused_in_words(raw: bytes, why: str) -> None:
    assert why in refusal(raw)


@given(st.integers(1, 1_000))
def test_a_number_in_a_query_is_read(k: int) -> None:
    assert counted(str(k)) == k


@pytest.mark.parametrize(
    "text", ["", "1.0", "1e2", "%2B5", "%205", "5%20", "1_000", "05", "٥", "five", "0", "1001", "-1", "9" * 400]
)
def test_what_is_no_number_in_plain_digits_is_refused_by_name(text: str) -> None:
    with pytest.raises(Problem) as raised:
        counted(text)
    assert raised.value.status == 400
    assert raised.value.errors[0]["parameter"] == "k"


def test_a_parameter_that_is_there_twice_is_refused_by_name() -> None:
    with pytest.raises(Problem, match="k: more than once"):
        read_query(make_mocked_request("GET", "/?k=1&k=2"), Counted)


def test_a_pointer_escapes_what_would_end_a_step() -> None:
    assert pointer(["a/b", 0, "c~d"]) == "#/a~1b/0/c~0d"
