"""Which views count, and into which buckets of time.

A view counts if no other with its id was recorded in its partition within the last `once_within` of append time, and it did not occur
over a minute after it was recorded. The rule reads the log alone, so every projection, and a replay next year, agree. A view from the
future does not take its id: sent again with the right time it counts. One that was parked takes it where it is retried (`ViewRetried`), as
of when it was recorded.

An id is known by 64 bits of it (XXH3), which is part of the rule: of a hundred million views in a partition's window one is likely to be
taken for another in one of four thousand such windows, and then by every projection and every replay alike.
"""

from collections.abc import Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from projections.sightings import Sightings
from schemas.columns import Events
from schemas.decoded import Decoded
from schemas.events import VideoViewed, ViewRetried
from schemas.log import Place, Recorded, milliseconds_of

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
    def remembers_from(self) -> int:
        """No id of a record before this offset is known."""
        return self._before.start_offset

    @property
    def nbytes(self) -> int:
        """About what the ids take."""
        return self._now.sightings.nbytes + self._before.sightings.nbytes

    def twin(self) -> "SeenIds":
        """One that has judged as far, and answers from there on."""
        twin = copy(self)
        twin.answers_from = self.judged_to
        twin._now = self._now.twin()
        return twin

    def judge(self, view: VideoViewed, recorded: Recorded) -> Verdict:
        """The verdict on `view`. Raises LookupError for a record before `answers_from`: the window has passed it."""
        return self.refusals(Events.of([Decoded(view, recorded)])).get(0, COUNTS)

    def refusals(self, events: Events[Any]) -> dict[int, Verdict]:
        """The verdict on each view among `events` that does not count, by its number; the id of one that is retried is known from there on.

        Raises LookupError like `judge`.
        """
        if events.types in ([], [VideoViewed.type]):
            return self._verdicts(events)
        verdicts: dict[int, Verdict] = {}
        for event_type, numbers in groupby(range(len(events)), lambda number: events.each[number].type):
            alike = list(numbers)
            if event_type == VideoViewed.type:
                verdicts |= {alike[number]: verdict for number, verdict in self._verdicts(events.take(alike)).items()}
            elif event_type == ViewRetried.type:
                for number in alike:
                    self._take_retried(events.each[number], int(events.offsets[number]))
        return verdicts

    def _take_retried(self, retried: ViewRetried, at: int) -> None:
        if at < self.judged_to:
            return
        offset = np.array([Place.of(retried.record).offset])
        recorded_at_ms = np.array([milliseconds_of(retried.recorded_at)])
        fingerprint = np.array([xxh3_64_intdigest(retried.view_id.encode())], dtype=np.uint64)
        sightings, before = self._now.sightings, self._before.sightings
        known = sightings.see(fingerprint, offset, recorded_at_ms, before).get(0)
        if known is not None and known[1] > recorded_at_ms[0]:
            sightings.see(fingerprint, np.array(known[:1]), np.array(known[1:]), before)
        self.judged_to = at + 1

    def _verdicts(self, views: Events[VideoViewed]) -> dict[int, Verdict]:
        told = int(np.searchsorted(views.offsets, self.judged_to))
        verdicts = self._told_again(views.offsets[:told])
        while told < len(views):
            following = self._turn_over(views, told)
            stretch = views if following - told == len(views) else views[told:following]
            verdicts |= {told + number: verdict for number, verdict in self._first_verdicts(stretch).items()}
            told = following
        return verdicts

    def _told_again(self, offsets: NDArray[np.int64]) -> dict[int, Verdict]:
        if len(offsets) and offsets[0] < self.answers_from:
            raise LookupError(
                f"the seen ids answer from offset {self.answers_from:,}, and were asked about {offsets[0]:,}"
            )
        told = ((number, offset) for number, offset in enumerate(offsets.tolist()))
        refused = self._before.refused | self._now.refused
        return {number: refused[offset] for number, offset in told if offset in refused}

    def _first_verdicts(self, views: Events[VideoViewed]) -> dict[int, Verdict]:
        verdicts: dict[int, Verdict] = dict(self._from_the_future(views))
        numbers: Sequence[int] = range(len(views))
        honest = views
        if verdicts:
            numbers = [number for number in numbers if number not in verdicts]
            honest = views.take(numbers)
        digests = map(xxh3_64_intdigest, map(str.encode, honest.column("view_id")))
        fingerprints = np.fromiter(digests, np.uint64, len(honest))
        earlier = self._now.sightings.see(fingerprints, honest.offsets, honest.times_ms, self._before.sightings)
        for number, (offset, time_ms) in earlier.items():
            if honest.times_ms[number] - time_ms <= self._within_ms:
                verdicts[numbers[number]] = Duplicate(offset)
        for number, verdict in verdicts.items():
            self._now.refused[int(views.offsets[number])] = verdict
        self.judged_to = int(views.offsets[-1]) + 1
        return verdicts

    def _from_the_future(self, views: Events[VideoViewed]) -> dict[int, FromTheFuture]:
        """Those that are, by their number."""
        latest = max(views.column("occurred_at"))
        if latest.timestamp() - int(views.times_ms.min()) / 1_000 <= CLOCK_SKEW.total_seconds():
            return {}
        times_ms = views.times_ms.tolist()
        ahead = (view.occurred_at.timestamp() - ms / 1_000 for view, ms in zip(views.each, times_ms, strict=True))
        return {number: FromTheFuture(s) for number, s in enumerate(ahead) if s > CLOCK_SKEW.total_seconds()}

    def _turn_over(self, views: Events[VideoViewed], first: int) -> int:
        """Begin a new generation if the first view is due for one; returns the number of the next view that is."""
        recorded_at_ms = int(views.times_ms[first])
        now = self._now
        if now.start_ms is None:
            now.start_ms = recorded_at_ms
        elif recorded_at_ms - now.start_ms > self._within_ms:
            now.sightings.put_away()
            self._before = now
            # Never further back than before: what a refill read only to remember was judged on too little.
            self.answers_from = max(self.answers_from, now.start_offset)
            now = self._now = _Generation(int(views.offsets[first]), recorded_at_ms)
        assert now.start_ms is not None
        due = np.flatnonzero(views.times_ms[first + 1 :] > now.start_ms + self._within_ms)
        return first + 1 + int(due[0]) if len(due) else len(views)


class _Generation:
    """What was seen in a stretch of the log."""

    def __init__(self, start_offset: int, start_ms: int | None = None) -> None:
        self.start_offset = start_offset
        self.start_ms = start_ms
        self.sightings = Sightings()
        self.refused: dict[int, Verdict] = {}

    def twin(self) -> "_Generation":
        """What was seen in the same stretch, and none of the verdicts on it."""
        twin = _Generation(self.start_offset, self.start_ms)
        twin.sightings = self.sightings.twin()
        return twin


def units_of(moments: Sequence[datetime], seconds: int) -> NDArray[np.int64]:
    """For each of `moments` the unit of so many seconds that it lies in, counted from 1970."""
    timestamps = np.fromiter(map(datetime.timestamp, moments), np.float64, len(moments))
    units: NDArray[np.int64] = (timestamps // seconds).astype(np.int64)
    return units


def minute_of(moment: datetime) -> int:
    """The minute of `moment`, counted from 1970."""
    return int(moment.timestamp() // MINUTE_SECONDS)


def hour_start(moment: datetime) -> datetime:
    """The UTC hour that `moment` lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_start(moment: datetime) -> datetime:
    """The UTC day that `moment` lies in."""
    return hour_start(moment).replace(hour=0)
