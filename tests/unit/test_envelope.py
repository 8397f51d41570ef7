"""What is read from the log, what is refused, and in which words. The CloudEvents SDK is the oracle of the two modes."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import MAX_VALUE_BYTES, decode, encode
from schemas.errors import InvalidEvent, Poison, Undecodable, UnknownType, WrongKey, WrongTopic
from schemas.events import PositionUpdated, VideoViewed
from schemas.log import Place
from schemas.usual import decode_usual
from tests.given import as_model
from tests.records import Kept, kept

NOW = datetime(2026, 5, 1, 20, 15, tzinfo=UTC)
VIEW = {"view_id": "view-1", "video_id": "heat", "occurred_at": "2026-05-01T20:15:00Z"}

ids = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))
seconds = st.floats(0, 1_000_000)
viewed = st.builds(
    VideoViewed,
    view_id=ids,
    video_id=ids,
    occurred_at=moments,
    viewer_id=st.none() | ids,
    watched_seconds=st.none() | seconds,
)


def by_another_service(message: KafkaMessage, key: str) -> Kept:
    return Kept(key.encode(), message.value, list(message.headers.items()))


def view_with(**fields: Any) -> Kept:
    data = {k: v for k, v in (VIEW | fields).items() if v is not ...}
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"/t"),
        ("ce_type", VideoViewed.type.encode()),
    ]
    return Kept(str(data.get("view_id")).encode(), orjson.dumps(data), headers)


@given(viewed, ids)
def test_what_is_written_is_read_again(event: VideoViewed, event_id: str) -> None:
    decoded = decode(kept(encode(event, event_id=event_id, source="/gateway")), "views")
    assert as_model(decoded.event) == event
    assert decoded.recorded == (Place("views", 3, 41_207), 1_777_666_500_000, event_id)


@given(viewed, ids)
def test_the_sdk_reads_what_is_written(event: VideoViewed, event_id: str) -> None:
    message = encode(event, event_id=event_id, source="/gateway")
    read = from_kafka_event(KafkaMessage(dict(message.headers), message.key, message.value))
    assert (read.get_id(), read.get_type(), read.get_source()) == (event_id, event.type, "/gateway")
    assert VideoViewed.model_validate_json(orjson.dumps(read.get_data())) == event


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event], ids=["binary", "structured"])
def test_what_the_sdk_writes_is_read(write: Any) -> None:
    event = CloudEvent(
        {"id": "1", "source": "/other", "type": VideoViewed.type, "datacontenttype": "application/json"}, VIEW
    )
    decoded = decode(by_another_service(write(event), "view-1"), "views")
    assert as_model(decoded.event) == VideoViewed(view_id="view-1", video_id="heat", occurred_at=NOW)


def test_the_original_append_time_of_a_copied_record_is_preferred() -> None:
    record = view_with()
    record.headers.append(("ce_recordedtime", b"2025-01-01T00:00:00Z"))
    assert decode(record, "views").recorded.recorded_at_ms == 1_735_689_600_000


def test_no_record_was_first_appended_after_it_was_appended() -> None:
    record = view_with()
    record.headers.extend([("content-type", b"application/json"), ("ce_recordedtime", b"2099-01-01T00:00:00Z")])
    usual = decode_usual([record], "views")
    assert usual is not None
    assert decode(record, "views").recorded.recorded_at_ms == usual[0].recorded.recorded_at_ms == record.timestamp


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("view_id", ..., "view_id: Field required"),
        ("view_id", "no spaces", "view_id: String should match"),
        ("view_id", "x" * 65, "view_id"),
        ("video_id", "a\x00b", "video_id"),
        ("video_id", 7, "video_id: Input should be a valid string"),
        ("watched_seconds", -1, "watched_seconds"),
        ("watched_seconds", "40", "watched_seconds: Input should be a valid number"),
        ("watched_seconds", True, "watched_seconds"),
        ("watched_seconds", 1e7, "watched_seconds"),
        ("occurred_at", "2026-05-01T20:15:00", "occurred_at"),
        ("occurred_at", "1777666500000000000000", "occurred_at"),
        ("occurred_at", 1_777_666_500, "occurred_at"),
        ("occurred_at", "1969-12-31T23:59:59Z", "occurred_at: must lie in the years 1970 to 2099"),
        ("occurred_at", "9999-12-31T23:59:59-14:00", "occurred_at: must lie in the years 1970 to 2099"),
        ("occurred_at", "0001-01-01T00:00:00+14:00", "occurred_at: must lie in the years 1970 to 2099"),
    ],
)
def test_a_field_out_of_its_bounds_is_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidEvent, match=words):
        decode(view_with(**{field: value}), "views")


def test_unknown_fields_are_ignored() -> None:
    assert decode(view_with(colour="red"), "views").event == decode(view_with(), "views").event


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
def test_a_number_that_is_not_finite_is_refused(number: bytes) -> None:
    record = view_with()
    value = orjson.dumps(VIEW)[:-1] + b',"watched_seconds":' + number + b"}"
    with pytest.raises((InvalidEvent, Undecodable)):
        decode(record._replace(value=value), "views")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "the value is null"),
        (b"\xff\xfe", "no JSON"),
        (b"{", "no JSON"),
        (b" " * (MAX_VALUE_BYTES + 1), "at most"),
    ],
)
def test_bytes_that_are_no_event_are_undecodable(value: bytes | None, words: str) -> None:
    with pytest.raises(Undecodable, match=words):
        decode(view_with()._replace(value=value), "views")


def test_a_record_without_an_envelope_is_told_what_is_missing() -> None:
    with pytest.raises(Undecodable, match="ce_type is missing; send CloudEvents headers"):
        decode(view_with()._replace(headers=[]), "views")


def test_an_unknown_type_is_named() -> None:
    headers = [(k, b"someone.else.v1" if k == "ce_type" else v) for k, v in view_with().headers]
    with pytest.raises(UnknownType, match=r"someone\.else\.v1"):
        decode(view_with()._replace(headers=headers), "views")


def test_a_type_on_another_topic_is_told_its_own() -> None:
    with pytest.raises(WrongTopic, match="belongs on the topic views"):
        decode(view_with(), "positions")


@pytest.mark.parametrize("key", [None, b"", b"heat"])
def test_a_key_that_is_not_the_id_is_refused(key: bytes | None) -> None:
    with pytest.raises(WrongKey, match="produce it keyed by view_id"):
        decode(view_with()._replace(key=key), "views")


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.sampled_from(["ce_type", "ce_id", "ce_specversion", "content-type"]), st.binary())),
)
def test_whatever_the_bytes_nothing_but_poison_is_raised(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(Poison):
        decode(Kept(b"k", value, headers), "views")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(list(PositionUpdated.model_fields)), json_values))
def test_whatever_the_fields_nothing_but_poison_is_raised(data: dict[str, Any]) -> None:
    envelope = {"specversion": "1.0", "id": "1", "source": "/t", "type": PositionUpdated.type, "data": data}
    try:
        value = orjson.dumps(envelope)
    except TypeError:  # an integer beyond 64 bits or half of a surrogate pair, which JSON writers refuse themselves
        return
    with pytest.raises(Poison):
        decode(Kept(None, value, [("content-type", b"application/cloudevents+json")]), "positions")
