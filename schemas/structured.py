"""An event as one JSON document: CloudEvents 1.0 in structured mode, its data in the newest version."""

from typing import Any

import orjson

from .decoded import Decoded
from .envelope import SPECVERSION, STRUCTURED
from .log import moment_of
from .records import Record

WRITTEN_ANEW = {"specversion", "id", "type", "data", "data_base64", "datacontenttype", "recordedtime"}


def structured(record: Record, decoded: Decoded) -> bytes:
    """What lies in `record`, which means `decoded`: extensions of its producer stay, `recordedtime` says when the log took it."""
    event, recorded = decoded
    told = {name: value for name, value in _attributes(record).items() if name not in WRITTEN_ANEW}
    return orjson.dumps(
        {
            "specversion": SPECVERSION.decode(),
            "id": recorded.event_id,
            "type": event.type,
            **told,
            "recordedtime": moment_of(recorded.recorded_at_ms),
            "datacontenttype": "application/json",
            "data": event.model_dump(mode="json", exclude_none=True),
        },
        option=orjson.OPT_UTC_Z,
    )


def _attributes(record: Record) -> dict[str, Any]:
    headers = dict(record.headers)
    if (headers.get("content-type") or b"").split(b";")[0].strip().lower() == STRUCTURED:
        envelope: dict[str, Any] = orjson.loads(record.value or b"{}")
        return envelope
    return {
        name.removeprefix("ce_"): value.decode(errors="replace")
        for name, value in headers.items()
        if name.startswith("ce_") and value is not None
    }
