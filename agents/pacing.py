"""How a broker is to answer the next fetch: at once where something comes now and then, with what has come where much does.

Every fetch is of all partitions. Where records come one by one every few milliseconds each would bring one; where nothing comes, asking
fifty times a second for each projection took half a core of a system at rest.
"""

from typing import NamedTuple

from agents.fetching import FETCH_WAIT_MS

BUSY_SECONDS = 0.1  # between two fetches that brought something, and since the last
BUSY_WAIT_MS = 50
MUCH_BYTES = 64 * 1024
QUIET_SECONDS = 1.0  # since when nothing came
QUIET_WAIT_MS = 250


class Answering(NamedTuple):
    """The broker answers once it has `min_bytes`, or after `wait_ms`."""

    min_bytes: int
    wait_ms: int


class Pacing:
    """Times are seconds of one clock, whichever."""

    def __init__(self) -> None:
        self._moved_at = 0.0
        self._between = QUIET_SECONDS

    def came(self, now: float) -> None:
        """A fetch has brought something."""
        self._between, self._moved_at = now - self._moved_at, now

    def resumed(self, now: float) -> None:
        """A partition was let go on, and has something perhaps."""
        self._moved_at = now

    def answering(self, now: float) -> Answering:
        """For a fetch that begins now."""
        still = now - self._moved_at
        if max(still, self._between) < BUSY_SECONDS:
            return Answering(MUCH_BYTES, BUSY_WAIT_MS)
        return Answering(1, QUIET_WAIT_MS if still > QUIET_SECONDS else FETCH_WAIT_MS)
