"""The structs that stand in for events: what they take, the models take for the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.handover import Partition
from agents.reading import read_records
from schemas.envelope import decode, encode
from schemas.events import Event, PositionUpdated, VideoViewed
from schemas.structs import Moved, Viewed
from schemas.usual import decode_usual
from tests.given import as_model, stopped, viewed
from tests.records import Kept, kept

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


def read_the_short_way(record: Kept, topic: str) -> list[Event] | None:
    usual = decode_usual([record], topic)
    return None if usual is None else [as_model(item.event) for item in usual]


def hold_together(record: Kept, topic: str) -> None:
    """What is read the short way is what the models read, and recorded the same."""
    usual = decode_usual([record], topic)
    if usual is not None:
        assert [(as_model(item.event), item.recorded) for item in usual] == [decode(record, topic)]


@given(drawn_views, unknown, st.booleans())
def test_a_view_is_read_as_the_models_read_it(data: dict[str, Any], more: dict[str, Any], is_keyed: bool) -> None:
    key = data["view_id"] if is_keyed and isinstance(data["view_id"], str) else "another"
    hold_together(as_a_record(VideoViewed, data | more, key), "views")


@given(drawn_positions, unknown, st.booleans())
def test_a_position_is_read_as_the_models_read_it(data: dict[str, Any], more: dict[str, Any], is_keyed: bool) -> None:
    key = data["viewer_id"] if is_keyed and isinstance(data["viewer_id"], str) else "another"
    hold_together(as_a_record(PositionUpdated, data | more, key), "positions")


@given(st.lists(drawn_views, max_size=150))
def test_odd_records_change_nothing_for_the_others_of_their_batch(drawn: list[dict[str, Any]]) -> None:
    usual = kept(encode(viewed("film", "usual"), event_id="e-1", source="/tests"))
    records = [usual, *(as_a_record(VideoViewed, data, str(data["view_id"])) for data in drawn)]
    batch = [record._replace(partition=0, offset=offset) for offset, record in enumerate(records * 2)]
    together = read_records(batch, Partition("views", 0), 1)
    alone = [read_records([record], Partition("views", 0), 1) for record in batch]
    assert [as_model(i.event) for i in together.decoded] == [as_model(i.event) for one in alone for i in one.decoded]
    assert together.poison == [poison for one in alone for poison in one.poison]


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
        assert read_the_short_way(record, event.topic) == [event]


@pytest.mark.parametrize("header", ["ce_type", "ce_id", "ce_specversion", "content-type"])
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"x" * 600])
def test_a_header_that_is_odd_or_missing_is_left_to_the_long_way(header: str, value: bytes | None) -> None:
    record = kept(encode(viewed("film"), event_id="e-1", source="/tests"))
    headers = [(name, kept_value) for name, kept_value in record.headers if name != header]
    odd = record._replace(headers=headers + ([(header, value)] if value is not None else []))
    assert read_the_short_way(odd, "views") is None


@pytest.mark.parametrize("written", [b"2026-05-01T20:15:00Z", b"2026-05-01T20:15:00.9999+02:00", b"soon", b"\xff", b""])
def test_the_original_append_time_is_read_the_same(written: bytes) -> None:
    record = kept(encode(viewed("film"), event_id="e-1", source="/tests"))
    hold_together(record._replace(headers=[*record.headers, ("ce_recordedtime", written)]), "views")
