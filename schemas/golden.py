"""The golden bytes: records as they were produced, of every version that was ever shipped, and what each means today.

What was produced never changes again: `frozen.txt` holds a digest of it, to which lines are only added. What it means (`means`) is the
newest event, so it changes when its type gets an upcaster.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from .envelope import STRUCTURED

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
FROZEN = "frozen.txt"


class Golden(NamedTuple):
    """One record as it was produced, and the data of the event that it means today."""

    name: str
    topic: str
    key: str
    headers: dict[str, str]
    value: str
    means: dict[str, Any]

    @property
    def structured(self) -> bool:
        return self.headers["content-type"] == STRUCTURED.decode()

    @property
    def type(self) -> str:
        """The type as which it was produced."""
        event_type: str = orjson.loads(self.value)["type"] if self.structured else self.headers["ce_type"]
        return event_type

    @property
    def data(self) -> Any:
        """Its data as they were produced."""
        value = orjson.loads(self.value)
        return value["data"] if self.structured else value

    @property
    def digest(self) -> str:
        """Of all that was produced; `means` is no part of it."""
        produced = [self.topic, self.key, self.headers, self.value]
        return hashlib.sha256(orjson.dumps(produced, option=orjson.OPT_SORT_KEYS)).hexdigest()


def goldens(folder: Path = GOLDEN) -> list[Golden]:
    """Every golden record, by name."""
    return [Golden(path.stem, **orjson.loads(path.read_bytes())) for path in sorted(folder.glob("*.json"))]


def frozen(folder: Path = GOLDEN) -> dict[str, str]:
    """The digests written down when each golden record was shipped, by name."""
    file = folder / FROZEN
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return {name: digest for digest, name in lines}


def broken_promises(records: Iterable[Golden], digests: dict[str, str]) -> list[str]:
    """A sentence for each golden record that was changed or is gone."""
    now = {record.name: record.digest for record in records}
    return [
        f"tests/golden/{name}.json {'was changed' if name in now else 'is gone'}: such records are in the log for ever; "
        "bring it back as it was, and write what you need as another golden record"
        for name, digest in digests.items()
        if now.get(name) != digest
    ]


def new_lines(records: Iterable[Golden], digests: dict[str, str]) -> list[str]:
    """The lines that `frozen.txt` lacks."""
    return [f"{record.digest}  {record.name}" for record in records if record.name not in digests]
