"""What was asked of the system and what it answered, in the order of time, each line in a file as it happens."""

import json
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["view", "position", "film", "top", "stats", "resume", "search"]
What = Literal["sent", "acknowledged", "unknown", "refused", "read", "unread", "fault", "over"]

WRITES: tuple[Kind, ...] = ("view", "position", "film")
READS: tuple[Kind, ...] = ("top", "stats", "resume", "search")


class Entry(NamedTuple):
    """At `at` (seconds since the start) `who` sent write `number`, or heard of it, or read.

    `acknowledged` has the place in the log; `unknown` may have been appended or not; `refused` never is. A fault's `kind` is what it does.
    """

    at: float
    who: str
    what: What
    kind: str
    number: int = -1
    more: dict[str, Any] = {}  # noqa: RUF012


class History:
    """Entries, kept and written down at once."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self._began = time.monotonic()
        self._file = path.open("w", buffering=1)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def note(self, who: str, what: What, kind: str, number: int = -1, **more: Any) -> None:
        entry = Entry(round(self.now, 4), who, what, kind, number, more)
        self.entries.append(entry)
        self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        self._file.close()


def longest_gap(moments: Iterable[float], start: float, end: float) -> float:
    """The longest stretch between two of `moments` that reaches into [start, end]."""
    return max(
        (after - before for before, after in pairwise(sorted(moments)) if before < end and after > start), default=0.0
    )
