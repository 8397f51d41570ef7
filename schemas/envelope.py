"""CloudEvents 1.0 on Kafka: headers, key and bytes to events and back.

Binary mode is written; binary and structured mode are read (CloudEvents Kafka protocol binding 1.0.2, §3).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from .decoded import Decoded
from .errors import InvalidEvent, NotUpcast, Undecodable, UnknownType, WrongKey, WrongTopic
from .events import EVENTS, Event
from .log import Place, Recorded
from .records import Record
from .upcasters import UPCASTERS, Upcaster, upcast

SPECVERSION = b"1.0"
STRUCTURED = b"application/cloudevents+json"
BINARY = b"application/json"
MAX_VALUE_BYTES = 512 * 1024  # far above the largest passport, far below what would stall a batch
MAX_ATTRIBUTE_LENGTH = 512
LONGEST_SHOWN_ID = 64  # in bytes: no id of ours is as long


class Message(NamedTuple):
    """An event ready to be produced."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def encode(event: Event, *, event_id: str, source: str) -> Message:
    """`event` in binary mode. `event_id` is unique within `source`: the same event sent again carries the same id."""
    return Message(
        event.topic,
        event.key.encode(),
        event.model_dump_json(exclude_none=True).encode(),
        [
            ("ce_specversion", SPECVERSION),
            ("ce_id", event_id.encode()),
            ("ce_source", source.encode()),
            ("ce_type", event.type.encode()),
            ("ce_time", event.occurred_at.isoformat().encode()),
            ("content-type", BINARY),
        ],
    )


def id_of(record: Record) -> str | None:
    """The id that a record in binary mode says it has, be it an event or not; None where it says none that can be shown."""
    raw = dict(record.headers).get("ce_id") or b""
    text = raw[:LONGEST_SHOWN_ID].decode(errors="replace")
    return text if text and text.isprintable() else None


def decode(record: Record, topic: str, upcasters: Mapping[str, Upcaster] = UPCASTERS) -> Decoded:
    """The event in `record`, upcast to its newest version.

    Raises Undecodable, UnknownType, NotUpcast, WrongTopic, InvalidEvent or WrongKey.
    That the partition is the key's own is checked for a whole batch at once, by the caller, with `partitions_of`.
    """
    value = record.value
    if value is None:
        raise Undecodable("the value is null; nothing in this system deletes by tombstone")
    if len(value) > MAX_VALUE_BYTES:
        raise Undecodable(f"the value has {len(value):,} bytes; at most {MAX_VALUE_BYTES:,} are read")
    headers = dict(record.headers)
    content_type = (headers.get("content-type") or b"").split(b";")[0].strip().lower()
    if content_type == STRUCTURED:
        event_type, event_id, recorded_time, data = _structured(value)
    else:
        event_type, event_id, recorded_time = _binary(headers)
        data = value
    if event_type not in EVENTS:
        event_type, data = _upcast(event_type, data, upcasters)
    model = EVENTS[event_type]
    if model.topic != topic:
        raise WrongTopic(f"{event_type} belongs on the topic {model.topic}, not on {topic}; produce it there")
    try:
        event = model.model_validate_json(data)
    except ValidationError as error:
        raise InvalidEvent(_in_words(error)) from None
    key = record.key
    if key is None or key != event.key.encode():
        raise WrongKey(
            f"the key is {key!r}, but {model.key_field} is {event.key!r}; produce it keyed by {model.key_field}"
        )
    recorded_at_ms = record.timestamp
    if recorded_time:
        # A copied record was never first appended after its own append: one that lies would end every window of seen ids.
        recorded_at_ms = min(_milliseconds(recorded_time), recorded_at_ms)
    return Decoded(event, Recorded(Place(topic, record.partition, record.offset), recorded_at_ms, event_id))


def original_time_ms(recorded_time: bytes) -> int:
    """When a copied record was first appended, in milliseconds since 1970, by its header ce_recordedtime. Raises Undecodable."""
    return _milliseconds(_text("recordedtime", recorded_time))


def _text(attribute: str, raw: bytes | None) -> str:
    if not raw:
        raise Undecodable(
            f"the header ce_{attribute} is missing; send CloudEvents headers (ce_*), "
            f"or the whole envelope as value with content-type: {STRUCTURED.decode()}"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Undecodable(f"the header ce_{attribute} is no UTF-8") from None
    if len(text) > MAX_ATTRIBUTE_LENGTH:
        raise Undecodable(f"the header ce_{attribute} is longer than {MAX_ATTRIBUTE_LENGTH} characters")
    return text


def _binary(headers: dict[str, bytes]) -> tuple[str, str, str | None]:
    event_type = _text("type", headers.get("ce_type"))
    if headers.get("ce_specversion") != SPECVERSION:
        raise Undecodable(f"ce_specversion is {headers.get('ce_specversion')!r}; only {SPECVERSION.decode()} is read")
    recorded_time = headers.get("ce_recordedtime")
    return (
        event_type,
        _text("id", headers.get("ce_id")),
        _text("recordedtime", recorded_time) if recorded_time else None,
    )


def _structured(value: bytes) -> tuple[str, str, str | None, bytes]:
    try:
        envelope = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Undecodable(f"the value is no JSON: {error}") from None
    if not isinstance(envelope, dict):
        raise Undecodable("the value is no JSON object, so it is no CloudEvent")
    for attribute in ("specversion", "id", "type"):
        text = envelope.get(attribute)
        if not isinstance(text, str) or not 0 < len(text) <= MAX_ATTRIBUTE_LENGTH:
            raise Undecodable(
                f"the attribute {attribute} is missing or no text of 1 to {MAX_ATTRIBUTE_LENGTH} characters"
            )
    if envelope["specversion"] != SPECVERSION.decode():
        raise Undecodable(f"specversion is {envelope['specversion']!r}; only {SPECVERSION.decode()} is read")
    recorded_time = envelope.get("recordedtime")
    if recorded_time is not None and not isinstance(recorded_time, str):
        raise Undecodable("the attribute recordedtime is no text")
    if not isinstance(envelope.get("data"), dict):
        raise Undecodable("the attribute data is missing or no JSON object")
    return envelope["type"], envelope["id"], recorded_time, orjson.dumps(envelope["data"])


def _upcast(event_type: str, data: bytes, upcasters: Mapping[str, Upcaster]) -> tuple[str, bytes]:
    try:
        older: Any = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Undecodable(f"the value is no JSON: {error}") from None
    if not isinstance(older, dict):
        raise Undecodable("the data is no JSON object")
    newest, newer = upcast(event_type, older, upcasters)
    if newest not in EVENTS:
        raise UnknownType(f"{event_type!r} is no type of this system; see asyncapi.yaml")
    try:
        return newest, orjson.dumps(newer)
    except orjson.JSONEncodeError as error:
        raise NotUpcast(
            f"the upcasters from {event_type} to {newest} made what is no JSON ({error}); mend them, then retry the record"
        ) from None


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Undecodable(f"recordedtime is {text!r}, no RFC 3339 time") from None
    if moment.tzinfo is None or not 1970 <= moment.year < 2100:
        raise Undecodable(f"recordedtime is {text!r}; it needs an offset and a year from 1970 to 2099")
    return round(moment.astimezone(UTC).timestamp() * 1_000)


def _in_words(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_context=False)
    if details[0]["type"] == "json_invalid":
        raise Undecodable(f"the value is no JSON: {details[0]['msg']}")
    return "; ".join(f"{'.'.join(map(str, d['loc'])) or 'data'}: {d['msg']}" for d in details)
