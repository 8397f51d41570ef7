"""Which views count, and into which buckets of time.

A view counts if no other with its id was recorded in its partition within the last `once_within` of append time, and it did not occur
over a minute after it was recorded. The rule reads the log alone, so every projection, and a replay next year, agree. A view from the
future does not take its id: sent again with the right time it counts.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from schemas.events import VideoViewed
from schemas.log import Recorded

CLOCK_SKEW = timedelta(minutes=1)  # what the clocks of honest producers may differ
MINUTE_SECONDS = 60


class Counts(NamedTuple):
    """The view counts."""


class Duplicate(NamedTuple):
    """The id was recorded before, at `earlier_offset` of the same partition."""

    earlier_offset: int


class FromTheFuture(NamedTuple):
    """The view says that it occurred `ahead_seconds` after it was recorded."""

    ahead_seconds: float


Verdict = Counts | Duplicate | FromTheFuture
COUNTS = Counts()


class SeenIds:
    """The ids seen in one partition, for `once_within` of append time; what the verdicts on its views rest on.

    It can be shared by projections at different offsets: each record is judged once, in the order of the log, and a projection that comes
    later is told the same verdict again, as long as it is not before `answers_from`.
    """

    def __init__(self, once_within: timedelta, *, start_offset: int) -> None:
        self.answers_from = start_offset
        self.judged_to = start_offset
        self._within_ms = round(once_within.total_seconds() * 1_000)
        # Two generations, each at least `once_within` long: dropping the older is the whole of forgetting.
        self._seen: dict[str, tuple[int, int]] = {}
        self._seen_before: dict[str, tuple[int, int]] = {}
        self._refused: dict[int, Verdict] = {}
        self._refused_before: dict[int, Verdict] = {}
        self._generation_start_ms: int | None = None
        self._generation_start_offset = start_offset

    def __len__(self) -> int:
        return len(self._seen) + len(self._seen_before)

    def judge(self, view: VideoViewed, recorded: Recorded) -> Verdict:
        """The verdict on `view`. Raises LookupError for a record before `answers_from`: the window has passed it."""
        offset = recorded.place.offset
        if offset < self.judged_to:
            if offset < self.answers_from:
                raise LookupError(
                    f"the seen ids answer from offset {self.answers_from:,}, and were asked about {recorded.place}"
                )
            return self._refused.get(offset) or self._refused_before.get(offset) or COUNTS
        self.judged_to = offset + 1
        recorded_at_ms = recorded.recorded_at_ms
        self._turn_over(recorded_at_ms, offset)
        verdict = self._first_verdict(view, offset, recorded_at_ms)
        if verdict is not COUNTS:
            self._refused[offset] = verdict
        return verdict

    def _first_verdict(self, view: VideoViewed, offset: int, recorded_at_ms: int) -> Verdict:
        ahead_seconds = view.occurred_at.timestamp() - recorded_at_ms / 1_000
        if ahead_seconds > CLOCK_SKEW.total_seconds():
            return FromTheFuture(ahead_seconds)
        earlier = self._seen.get(view.view_id) or self._seen_before.get(view.view_id)
        self._seen[view.view_id] = offset, recorded_at_ms
        if earlier is not None and recorded_at_ms - earlier[1] <= self._within_ms:
            return Duplicate(earlier[0])
        return COUNTS

    def _turn_over(self, recorded_at_ms: int, offset: int) -> None:
        if self._generation_start_ms is None:
            self._generation_start_ms = recorded_at_ms
        elif recorded_at_ms - self._generation_start_ms > self._within_ms:
            self._seen_before, self._seen = self._seen, {}
            self._refused_before, self._refused = self._refused, {}
            # Never further back than before: what a refill read only to remember was judged on too little.
            self.answers_from = max(self.answers_from, self._generation_start_offset)
            self._generation_start_ms, self._generation_start_offset = recorded_at_ms, offset


def minute_of(moment: datetime) -> int:
    """The minute of `moment`, counted from 1970."""
    return int(moment.timestamp() // MINUTE_SECONDS)


def hour_start(moment: datetime) -> datetime:
    """The UTC hour that `moment` lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_start(moment: datetime) -> datetime:
    """The UTC day that `moment` lies in."""
    return hour_start(moment).replace(hour=0)
