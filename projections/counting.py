"""Which views count, and into which buckets of time.

A view counts if no other with its id was recorded in its partition within the last `once_within` of append time, and it did not occur
over a minute after it was recorded. The rule reads the log alone, so every projection, and a replay next year, agree. A view from the
future does not take its id: sent again with the right time it counts.

An id is known by 64 bits of it (XXH3), which is part of the rule: of a hundred million views in a partition's window one is likely to be
taken for another in one of four thousand such windows, and then by every projection and every replay alike.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from projections.sightings import Sightings
from schemas.events import VideoViewed
from schemas.log import Recorded

CLOCK_SKEW = timedelta(minutes=1)  # what the clocks of honest producers may differ
MINUTE_SECONDS = 60
HOUR_SECONDS = 3_600


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
        self._now = _Generation(start_offset)
        self._before = _Generation(start_offset)

    def __len__(self) -> int:
        return len(self._now.sightings) + len(self._before.sightings)

    @property
    def nbytes(self) -> int:
        """About what the ids take."""
        return self._now.sightings.nbytes + self._before.sightings.nbytes

    def judge(self, view: VideoViewed, recorded: Recorded) -> Verdict:
        """The verdict on `view`. Raises LookupError for a record before `answers_from`: the window has passed it."""
        return self.judge_all([(view, recorded)])[0]

    def judge_all(self, views: Sequence[tuple[VideoViewed, Recorded]]) -> list[Verdict]:
        """The verdict on each of `views`, which are in the order of the log. Raises LookupError like `judge`."""
        told = 0
        while told < len(views) and views[told][1].place.offset < self.judged_to:
            told += 1
        verdicts = [self._told_again(recorded) for _, recorded in views[:told]]
        while told < len(views):
            following = self._turn_over(views, told)
            verdicts += self._first_verdicts(views[told:following])
            told = following
        return verdicts

    def _told_again(self, recorded: Recorded) -> Verdict:
        offset = recorded.place.offset
        if offset < self.answers_from:
            raise LookupError(
                f"the seen ids answer from offset {self.answers_from:,}, and were asked about {recorded.place}"
            )
        return self._now.refused.get(offset) or self._before.refused.get(offset) or COUNTS

    def _first_verdicts(self, views: Sequence[tuple[VideoViewed, Recorded]]) -> list[Verdict]:
        fingerprints = [xxh3_64_intdigest(view.view_id.encode()) for view, _ in views]
        now = self._now.sightings
        recent, earlier = now.recent, now.earlier(fingerprints, self._before.sightings)
        verdicts: list[Verdict] = []
        skew_seconds, within_ms = CLOCK_SKEW.total_seconds(), self._within_ms
        for (view, recorded), fingerprint in zip(views, fingerprints, strict=True):
            offset, recorded_at_ms = recorded.place.offset, recorded.recorded_at_ms
            verdict: Verdict = COUNTS
            ahead_seconds = view.occurred_at.timestamp() - recorded_at_ms / 1_000
            if ahead_seconds > skew_seconds:
                verdict = FromTheFuture(ahead_seconds)
            else:
                sighting = recent.get(fingerprint) or earlier.get(fingerprint)
                recent[fingerprint] = offset, recorded_at_ms
                if sighting is not None and recorded_at_ms - sighting[1] <= within_ms:
                    verdict = Duplicate(sighting[0])
            if verdict is not COUNTS:
                self._now.refused[offset] = verdict
            verdicts.append(verdict)
        self.judged_to = views[-1][1].place.offset + 1
        now.put_away()
        return verdicts

    def _turn_over(self, views: Sequence[tuple[VideoViewed, Recorded]], first: int) -> int:
        """Begin a new generation if the first view is due for one; returns the number of the next view that is."""
        _, recorded = views[first]
        now = self._now
        if now.start_ms is None:
            now.start_ms = recorded.recorded_at_ms
        elif recorded.recorded_at_ms - now.start_ms > self._within_ms:
            self._before = now
            # Never further back than before: what a refill read only to remember was judged on too little.
            self.answers_from = max(self.answers_from, now.start_offset)
            now = self._now = _Generation(recorded.place.offset, recorded.recorded_at_ms)
        assert now.start_ms is not None
        due_ms = now.start_ms + self._within_ms
        if views[-1][1].recorded_at_ms <= due_ms:
            return len(views)
        return next(
            i for i in range(first + 1, len(views) + 1) if i == len(views) or views[i][1].recorded_at_ms > due_ms
        )


class _Generation:
    """What was seen in a stretch of the log."""

    def __init__(self, start_offset: int, start_ms: int | None = None) -> None:
        self.start_offset = start_offset
        self.start_ms = start_ms
        self.sightings = Sightings()
        self.refused: dict[int, Verdict] = {}


def minute_of(moment: datetime) -> int:
    """The minute of `moment`, counted from 1970."""
    return int(moment.timestamp() // MINUTE_SECONDS)


def hour_of(moment: datetime) -> int:
    """The hour of `moment`, counted from 1970."""
    return int(moment.timestamp() // HOUR_SECONDS)


def hour_start(moment: datetime) -> datetime:
    """The UTC hour that `moment` lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_start(moment: datetime) -> datetime:
    """The UTC day that `moment` lies in."""
    return hour_start(moment).replace(hour=0)
