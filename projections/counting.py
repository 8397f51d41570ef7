"""Which views count, and into which buckets of time.

A view counts if no other with its id was recorded in its partition within the last `once_within` of append time, and it did not occur
over a minute after it was recorded. The rule reads the log alone, so every projection, and a replay next year, agree. A view from the
future does not take its id: sent again with the right time it counts.

An id is known by 64 bits of it (XXH3), which is part of the rule: of a hundred million views in a partition's window one is likely to be
taken for another in one of four thousand such windows, and then by every projection and every replay alike.
"""

from collections import Counter
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


class RuledOut(NamedTuple):
    """The rule that this version was built with leaves the view out (`rule`)."""

    reason: str


Verdict = Counts | Duplicate | FromTheFuture | RuledOut
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
        from_the_future = self._from_the_future(views)
        verdicts: list[Verdict] = [COUNTS] * len(views)
        for number, from_when in from_the_future.items():
            verdicts[number] = from_when
        honest = [number for number in range(len(views)) if number not in from_the_future]
        fingerprints = [xxh3_64_intdigest(views[number][0].view_id.encode()) for number in honest]
        sightings = [(views[number][1].place.offset, views[number][1].recorded_at_ms) for number in honest]
        recent = self._now.sightings.recent
        known = self._now.sightings.earlier(fingerprints, self._before.sightings)
        # Almost all are new, and go in at once; only of the others it matters in which order they come.
        suspects = known.keys() | (recent.keys() & set(fingerprints))
        if len(set(fingerprints)) < len(fingerprints):
            suspects |= {fingerprint for fingerprint, times in Counter(fingerprints).items() if times > 1}
        for number, fingerprint, sighting in zip(honest, fingerprints, sightings, strict=True):
            if fingerprint in suspects:
                before = recent.get(fingerprint) or known.get(fingerprint)
                recent[fingerprint] = sighting
                if before is not None and sighting[1] - before[1] <= self._within_ms:
                    verdicts[number] = Duplicate(before[0])
        recent.update(zip(fingerprints, sightings, strict=True))
        for (_, recorded), verdict in zip(views, verdicts, strict=True):
            if verdict is not COUNTS:
                self._now.refused[recorded.place.offset] = verdict
        self.judged_to = views[-1][1].place.offset + 1
        self._now.sightings.put_away()
        return verdicts

    def _from_the_future(self, views: Sequence[tuple[VideoViewed, Recorded]]) -> dict[int, FromTheFuture]:
        """Those that are, by their number."""
        earliest_ms = min(recorded.recorded_at_ms for _, recorded in views)
        latest = max(view.occurred_at for view, _ in views)
        if latest.timestamp() - earliest_ms / 1_000 <= CLOCK_SKEW.total_seconds():
            return {}
        ahead = (view.occurred_at.timestamp() - recorded.recorded_at_ms / 1_000 for view, recorded in views)
        return {number: FromTheFuture(s) for number, s in enumerate(ahead) if s > CLOCK_SKEW.total_seconds()}

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


def hour_start(moment: datetime) -> datetime:
    """The UTC hour that `moment` lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_start(moment: datetime) -> datetime:
    """The UTC day that `moment` lies in."""
    return hour_start(moment).replace(hour=0)
