"""Older versions of an event, up to the newest, and what becomes of those that cannot get there."""

from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import decode
from schemas.errors import InvalidEvent, NotUpcast, WrongKey
from schemas.events import VideoViewed
from schemas.upcasters import Upcaster, WrongUpcasters, chained, upcast
from tests.given import as_model, viewed
from tests.records import Kept

# Two older versions of a view, as they might have been: without seconds, then without a name for the film.
OLDEST, OLDER = "entertainmenttime.video.viewed.v-1", "entertainmenttime.video.viewed.v0"
CHAIN = chained(
    {
        OLDEST: Upcaster(OLDER, lambda data: {**data, "seconds": data["minutes"] * 60.0}),
        OLDER: Upcaster(
            VideoViewed.type,
            lambda data: {**data, "video_id": data["film"], "watched_seconds": data["seconds"]},
        ),
    }
)
AT = "2026-05-01T20:10:00Z"
OLDEST_DATA = {"view_id": "view-1", "film": "heat", "minutes": 2, "occurred_at": AT}


def record(event_type: str, data: Any, write: Any = to_binary_event, *, key: str = "view-1") -> Kept:
    event = CloudEvent({"id": "1", "source": "/old", "type": event_type, "datacontenttype": "application/json"}, data)
    message = write(event)
    return Kept(key.encode(), message.value, list(message.headers.items()))


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event], ids=["binary", "structured"])
def test_a_record_of_the_oldest_version_is_read_as_the_newest_event(write: Any) -> None:
    decoded = decode(record(OLDEST, OLDEST_DATA, write), "views", CHAIN)
    assert decoded.event == viewed("heat", "view-1").model_copy(update={"watched_seconds": 120.0})


@given(st.integers(0, 100))
def test_entering_the_chain_later_leads_to_the_same_event(minutes: int) -> None:
    data = {**OLDEST_DATA, "minutes": minutes}
    assert upcast(OLDEST, data, CHAIN) == upcast(OLDER, CHAIN[OLDEST].upcast(data), CHAIN)


def test_a_type_that_nobody_upcasts_comes_back_as_it_is() -> None:
    assert upcast("someone.else.v1", {"a": 1}, CHAIN) == ("someone.else.v1", {"a": 1})


def test_what_an_upcaster_cannot_read_is_told_with_the_step_that_failed() -> None:
    with pytest.raises(NotUpcast, match=rf"from {OLDEST} to {OLDER} failed on these data \(KeyError: 'minutes'\)"):
        decode(record(OLDEST, {"view_id": "view-1"}), "views", CHAIN)


@pytest.mark.parametrize("answer", [None, [], "text"])
def test_an_upcaster_that_answers_no_dict_is_told(answer: Any) -> None:
    wrong = {OLDER: Upcaster(VideoViewed.type, lambda _: answer)}
    with pytest.raises(NotUpcast, match="not a dict"):
        decode(record(OLDER, {}), "views", wrong)


def test_an_upcaster_that_answers_what_json_cannot_hold_is_told() -> None:
    wrong = {OLDER: Upcaster(VideoViewed.type, lambda data: {**data, "seen": object()})}
    with pytest.raises(NotUpcast, match="no JSON"):
        decode(record(OLDER, {}), "views", wrong)


def test_what_an_upcaster_makes_is_held_to_the_bounds_of_the_newest() -> None:
    with pytest.raises(InvalidEvent, match="watched_seconds"):
        decode(record(OLDEST, {**OLDEST_DATA, "minutes": -1}), "views", CHAIN)


def test_an_upcaster_that_changes_the_id_no_longer_fits_the_key() -> None:
    wrong = {OLDER: Upcaster(VideoViewed.type, lambda data: {**data, "view_id": "other"})}
    with pytest.raises(WrongKey):
        decode(record(OLDER, {"view_id": "view-1", "video_id": "heat", "occurred_at": AT}), "views", wrong)


def test_the_data_of_a_type_that_is_read_are_never_upcast() -> None:
    data = {"view_id": "view-1", "video_id": "heat", "occurred_at": AT}
    assert orjson.loads(record(VideoViewed.type, data).value or b"") == data
    assert as_model(decode(record(VideoViewed.type, data), "views", CHAIN).event) == viewed("heat", "view-1")


def to(becomes: str) -> Upcaster:
    return Upcaster(becomes, dict)


@pytest.mark.parametrize(
    ("upcasters", "words"),
    [
        ({"a.v1": to("a.v1")}, r"circle: a\.v1 → a\.v1"),
        ({"a.v1": to("a.v2"), "a.v2": to("a.v3"), "a.v3": to("a.v2")}, r"circle: a\.v1 → a\.v2 → a\.v3 → a\.v2"),
        ({"a.v1": to("a.v2")}, r"end at a\.v2, which is no event"),
        ({"a.v9": to("b.v1")}, r"a\.v9 has a model"),
    ],
)
def test_a_chain_that_leads_to_no_event_does_not_start(upcasters: dict[str, Upcaster], words: str) -> None:
    with pytest.raises(WrongUpcasters, match=words):
        chained(upcasters, newest={"a.v9"})
