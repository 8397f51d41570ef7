"""Ranges and preconditions, against RFC 9110 and a model that is too simple to be wrong."""

from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ETag
from hypothesis import given
from hypothesis import strategies as st

from gateway.ranges import Conditions, Slice, Unsatisfiable, evaluate, find_range, range_still_holds

MODIFIED = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
LAST_MODIFIED = "Sun, 01 Mar 2026 12:00:00 GMT"
sizes = st.integers(0, 40)
numbers = st.integers(0, 50)


def sent(header: str, size: int) -> list[int] | str:
    """The positions of the bytes that an answer would hold."""
    found = find_range(header, size)
    if found is None:
        return "whole"
    return "unsatisfiable" if isinstance(found, Unsatisfiable) else list(range(found.start, found.end))


def some_or_416(positions: list[int]) -> list[int] | str:
    return positions or "unsatisfiable"


@given(numbers, numbers, sizes)
def test_a_closed_range_gives_the_positions_in_it_that_exist(first: int, last: int, size: int) -> None:
    expected = "whole" if last < first else some_or_416([p for p in range(size) if first <= p <= last])
    assert sent(f"bytes={first}-{last}", size) == expected


@given(numbers, sizes)
def test_an_open_range_gives_everything_from_its_start(first: int, size: int) -> None:
    assert sent(f"bytes={first}-", size) == some_or_416([p for p in range(size) if p >= first])


@given(numbers, sizes)
def test_a_suffix_gives_the_last_positions(length: int, size: int) -> None:
    assert sent(f"bytes=-{length}", size) == some_or_416(list(range(size))[-length:] if length else [])


@given(st.text(max_size=60) | st.text("bytes=0123456789-, ").map("bytes=".__add__), st.integers(0, 2**60))
def test_no_header_breaks_it_or_leaves_the_object(header: str, size: int) -> None:
    found = find_range(header, size)
    if isinstance(found, Slice):
        assert 0 <= found.start < found.end <= size


@pytest.mark.parametrize(
    "header",
    ["bytes=0-0,2-3", "items=0-3", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=0x1-2", "bytes=٣-٤", "bytes 0-1"],
)
def test_what_is_no_single_byte_range_gives_the_whole(header: str) -> None:
    assert find_range(header, 10) is None


def test_a_number_of_thousands_of_digits_is_beyond_the_end() -> None:
    assert find_range(f"bytes=2-{'9' * 5_000}", 10) == Slice(2, 10)


def test_the_unit_is_read_in_any_case() -> None:
    assert find_range("BYTES=2-3", 10) == Slice(2, 4)


def test_the_same_entity_tag_is_not_modified() -> None:
    assert evaluate(Conditions(if_none_match=(ETag("a"), ETag("b"))), "b", MODIFIED) == 304


def test_a_weak_comparison_is_enough_for_not_modified() -> None:
    assert evaluate(Conditions(if_none_match=(ETag("b", is_weak=True),)), "b", MODIFIED) == 304


def test_another_entity_tag_beats_an_unmodified_date() -> None:
    later = MODIFIED + timedelta(days=1)
    assert evaluate(Conditions(if_none_match=(ETag("other"),), if_modified_since=later), "b", MODIFIED) is None


def test_an_object_of_the_same_second_is_not_modified() -> None:
    assert evaluate(Conditions(if_modified_since=MODIFIED.replace(microsecond=0)), "b", MODIFIED) == 304


def test_an_object_changed_since_is_sent() -> None:
    assert evaluate(Conditions(if_modified_since=MODIFIED - timedelta(seconds=1)), "b", MODIFIED) is None


def test_a_failed_if_match_ends_the_request_before_not_modified() -> None:
    assert evaluate(Conditions(if_match=(ETag("other"),), if_none_match=(ETag("b"),)), "b", MODIFIED) == 412


def test_if_match_compares_strongly() -> None:
    assert evaluate(Conditions(if_match=(ETag("b", is_weak=True),)), "b", MODIFIED) == 412


def test_an_object_changed_since_fails_if_unmodified_since() -> None:
    assert evaluate(Conditions(if_unmodified_since=MODIFIED - timedelta(days=1)), "b", MODIFIED) == 412


@pytest.mark.parametrize("if_range", [None, '"b"', LAST_MODIFIED])
def test_a_range_of_the_same_version_holds(if_range: str | None) -> None:
    assert range_still_holds(if_range, "b", LAST_MODIFIED)


@pytest.mark.parametrize("if_range", ['"other"', 'W/"b"', "b", "Sun, 01 Mar 2026 12:00:01 GMT", "", "nonsense"])
def test_a_range_of_another_version_is_ignored(if_range: str) -> None:
    assert not range_still_holds(if_range, "b", LAST_MODIFIED)
