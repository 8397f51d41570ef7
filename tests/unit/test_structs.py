"""The structs that stand in for events: what they take, the models take for the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import decode, decode_any, encode
from schemas.errors import Poison
from schemas.events import PositionUpdated, VideoViewed
from schemas.structs import Moved, Viewed
from tests.given import stopped, viewed
from tests.records import Kept, kept

FIELDS = ("occurred_at", "view_id", "video_id", "viewer_id", "watched_seconds", "session_id")
FIELDS_OF_POSITIONS = (
    "viewer_id",
    "video_id",
    "position_seconds",
    "duration_seconds",
    "session_id",
    "state",
    "occurred_at",
)

ids = st.sampled_from(
    ["a", "film-1", "A.b_c:d-9", "x" * 64, "x" * 65, "", "a b", "ä", "a\n", "a\u0000", "\ud800", None, 7]
)
times = st.one_of(
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.sampled_from(
        [
            "2026-05-01T20:15:00Z",
            "2026-05-01t20:15:00z",
            "2026-05-01 20:15:00.5Z",
            "2026-05-01T20:15:00.123456Z",
            "2026-05-01T20:15:00.1234567Z",
            "2026-05-01T20:15:59.9999999Z",
            "2099-12-31T23:59:59.9999999Z",
            "2026-05-01T20:15:00,5Z",
            "2026-05-01T20:15:00-00:00",
            "2026-05-01T20:15:00+05:30",
            "2026-05-01T20:15:60Z",
            "2026-05-01T24:00:00Z",
            "2026-W18-5T20:15:00Z",
            "20260501T201500Z",
            "2026-05-01T20:15:00",
            "2026-05-01",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00Z",
            "2100-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "",
        ]
    ),
    st.sampled_from([None, 1_777_666_500, "1777666500"]),
)
seconds = st.one_of(
    st.floats(), st.integers(), st.sampled_from([0, -0.0, 1e6, 1_000_000.1, -1, 10**30, True, None, "5", [5]])
)
states = st.sampled_from(["playing", "paused", "stopped", "Playing", "", None, 1])
unknown = st.dictionaries(st.sampled_from(["x", "y"]), st.one_of(st.none(), st.text(max_size=3)), max_size=1)
drawn_views = st.fixed_dictionaries(
    {"view_id": ids, "video_id": ids, "occurred_at": times},
    optional={"viewer_id": ids, "session_id": ids, "watched_seconds": seconds},
)
drawn_positions = st.fixed_dictionaries(
    {"viewer_id": ids, "video_id": ids, "occurred_at": times, "position_seconds": seconds},
    optional={"duration_seconds": seconds, "session_id": ids, "state": states},
)


def as_a_record(event_type: type[VideoViewed] | type[PositionUpdated], data: dict[str, Any], key: str | None) -> Kept:
    example = viewed("film") if event_type is VideoViewed else stopped("ann", "film", at="20:10", seconds=1)
    message = encode(example, event_id="e-1", source="/tests")
    value = json.dumps(data).encode()
    key_bytes = None if key is None else key.encode(errors="replace")
    return kept(message)._replace(value=value, key=key_bytes)


def outcome(decode_it: Any, record: Kept, topic: str, names: tuple[str, ...]) -> Any:
    """The fields and how they are recorded, or the poison's class and words."""
    try:
        event, recorded = decode_it(record, topic)
    except Poison as poison:
        return type(poison), str(poison)
    return [getattr(event, name) for name in names], recorded


@given(drawn_views, unknown, st.booleans())
def test_a_view_is_read_as_the_models_read_it(data: dict[str, Any], more: dict[str, Any], is_keyed: bool) -> None:
    key = data["view_id"] if is_keyed and isinstance(data["view_id"], str) else "another"
    record = as_a_record(VideoViewed, data | more, key)
    assert outcome(decode, record, "views", FIELDS) == outcome(decode_any, record, "views", FIELDS)


@given(drawn_positions, unknown, st.booleans())
def test_a_position_is_read_as_the_models_read_it(data: dict[str, Any], more: dict[str, Any], is_keyed: bool) -> None:
    key = data["viewer_id"] if is_keyed and isinstance(data["viewer_id"], str) else "another"
    record = as_a_record(PositionUpdated, data | more, key)
    assert outcome(decode, record, "positions", FIELDS_OF_POSITIONS) == outcome(
        decode_any, record, "positions", FIELDS_OF_POSITIONS
    )


@pytest.mark.parametrize(("struct", "model"), [(Viewed, VideoViewed), (Moved, PositionUpdated)])
def test_a_struct_has_the_fields_of_its_model(struct: Any, model: Any) -> None:
    assert set(struct.__struct_fields__) == set(model.model_fields)
    assert (struct.type, struct.topic, struct.key_field) == (model.type, model.topic, model.key_field)


def test_what_our_own_services_write_is_read_the_short_way() -> None:
    for event in (
        viewed("film"),
        stopped("ann", "film", at="20:10:00.123456", seconds=1.5, session="tv", state="paused"),
    ):
        record = kept(encode(event, event_id="e-1", source="/tests"))
        assert isinstance(decode(record, event.topic).event, Viewed | Moved)


@pytest.mark.parametrize("header", ["ce_type", "ce_id", "ce_specversion", "content-type"])
def test_a_header_that_is_odd_or_missing_is_left_to_the_long_way(header: str) -> None:
    record = kept(encode(viewed("film"), event_id="e-1", source="/tests"))
    for value in (None, b"", b"\xff", b"x" * 600):
        headers = [(name, kept_value) for name, kept_value in record.headers if name != header]
        odd = record._replace(headers=headers + ([(header, value)] if value is not None else []))
        assert outcome(decode, odd, "views", FIELDS) == outcome(decode_any, odd, "views", FIELDS)


@pytest.mark.parametrize("written", [b"2026-05-01T20:15:00Z", b"2026-05-01T20:15:00.9999+02:00", b"soon", b"\xff", b""])
def test_the_original_append_time_is_read_the_same(written: bytes) -> None:
    record = kept(encode(viewed("film"), event_id="e-1", source="/tests"))
    copied = record._replace(headers=[*record.headers, ("ce_recordedtime", written)])
    assert outcome(decode, copied, "views", FIELDS) == outcome(decode_any, copied, "views", FIELDS)
