"""When a reader fetches: at once where something comes now and then, what has come meanwhile where records come one after the other.

Every fetch is of all partitions. Where records come one by one every few milliseconds each would bring one; where nothing comes, asking
fifty times a second for each projection took half a core of a system at rest.
"""

from agents.fetching import FETCH_WAIT_MS

BUSY_SECONDS = 0.1  # between two fetches that brought something, and since the last
MUCH = 250  # records in a fetch: there are more perhaps, and nothing to wait for
REST_SECONDS = 0.05
SHORT_REST_SECONDS = 0.005  # before what somebody waits for
QUIET_SECONDS = 1.0  # since when nothing came
QUIET_WAIT_MS = 250


class Pacing:
    """Times are seconds of one clock, whichever."""

    def __init__(self) -> None:
        self._moved_at = 0.0
        self._between = QUIET_SECONDS
        self._came = 0
        self._hurried_at = 0.0

    def came(self, now: float, records: int) -> None:
        """A fetch has brought something."""
        self._between, self._moved_at, self._came = now - self._moved_at, now, records

    def resumed(self, now: float) -> None:
        """A partition was let go on, and has something perhaps."""
        self._moved_at = now

    def hurried(self, now: float) -> None:
        """Something has been fetched of what somebody waits for, and nothing else."""
        self._hurried_at = now

    @property
    def rest_until(self) -> float:
        """When to fetch again."""
        if self._between >= BUSY_SECONDS or self._came >= MUCH:
            return self._moved_at
        return self._moved_at + REST_SECONDS

    @property
    def hurry_from(self) -> float:
        """When to fetch what somebody waits for."""
        return max(self._moved_at, self._hurried_at) + SHORT_REST_SECONDS

    def wait_ms(self, now: float) -> int:
        """How long the broker may wait for something to come, before it answers a fetch that begins now."""
        return QUIET_WAIT_MS if now - self._moved_at > QUIET_SECONDS else FETCH_WAIT_MS
