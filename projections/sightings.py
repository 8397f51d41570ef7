"""Where and when each id was seen last, in 24 bytes an id.

Those of small batches lie in a dict. When they are many they are put away in a *run*: arrays in the order of their fingerprints. A large
batch becomes a run at once. Runs of a size are merged, so that there are few of them, and a whole batch is looked up in each at once.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RECENT = 50_000  # ids in the dict before they are put away: about 10 MB of Python's objects
RECENT_BYTES = 220  # what an id takes there
LARGE = 300  # ids, from which on arrays are faster than a dict

Sighting = tuple[int, int]
"""Offset, and append time in milliseconds since 1970."""

Numbers = NDArray[np.int64]
Fingerprints = NDArray[np.uint64]


class Run(NamedTuple):
    """Each fingerprint once, ascending, with its latest sighting."""

    fingerprints: Fingerprints
    offsets: Numbers
    times_ms: Numbers


class Sightings:
    """The latest sighting of each id; `most_recent` of them at most lie in the dict, and a batch of `large` never does."""

    def __init__(self, most_recent: int = RECENT, large: int = LARGE) -> None:
        self._most_recent = most_recent
        self._large = large
        self._recent: dict[int, Sighting] = {}
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(len(run.fingerprints) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """About what they take."""
        return len(self._recent) * RECENT_BYTES + sum(array.nbytes for run in self._runs for array in run)

    def twin(self) -> "Sightings":
        """One that knows the same, and learns for itself."""
        self.put_away()
        twin = Sightings(self._most_recent, self._large)
        twin._runs = list(self._runs)
        return twin

    def see(
        self, fingerprints: Fingerprints, offsets: Numbers, times_ms: Numbers, before: "Sightings"
    ) -> dict[int, Sighting]:
        """Take note of a batch, in the order of the log. Returns the sighting before, for the number of each that was seen before: earlier
        in the batch, here, or in `before`, of which nothing may lie in the dict."""
        if len(fingerprints) >= self._large:
            return self._see_many(Run(fingerprints, offsets, times_ms), before)
        known = self._known(fingerprints, before)
        found: dict[int, Sighting] = {}
        batch = zip(fingerprints.tolist(), offsets.tolist(), times_ms.tolist(), strict=True)
        for number, (fingerprint, offset, time_ms) in enumerate(batch):
            if (earlier := self._recent.get(fingerprint) or known.get(number)) is not None:
                found[number] = earlier
            self._recent[fingerprint] = offset, time_ms
        if len(self._recent) >= self._most_recent:
            self.put_away()
        return found

    def put_away(self) -> None:
        """Pack those that lie in the dict."""
        if self._recent:
            sightings = np.array(list(self._recent.values()), dtype=np.int64)
            run = Run(np.array(list(self._recent), dtype=np.uint64), sightings[:, 0], sightings[:, 1])
            self._recent.clear()
            self._keep(_picked(run, np.argsort(run.fingerprints)))

    def _see_many(self, batch: Run, before: "Sightings") -> dict[int, Sighting]:
        self.put_away()
        order = np.argsort(batch.fingerprints, kind="stable")
        ordered = _picked(batch, order)
        again = ordered.fingerprints[1:] == ordered.fingerprints[:-1]
        found = _sightings(order[1:][again], ordered.offsets[:-1][again], ordered.times_ms[:-1][again])
        first = order[np.append(True, ~again)]
        known = self._known(batch.fingerprints[first], before)
        found |= {int(first[number]): sighting for number, sighting in known.items()}
        self._keep(_picked(ordered, np.append(~again, True)))
        return found

    def _known(self, wanted: Fingerprints, before: "Sightings") -> dict[int, Sighting]:
        """The latest sighting that lies in a run, for the number of each of `wanted` that has one."""
        found: dict[int, Sighting] = {}
        # From the oldest to the newest, so that the latest stays.
        for run in (*before._runs, *self._runs):
            at = np.minimum(np.searchsorted(run.fingerprints, wanted), len(run.fingerprints) - 1)
            hits = np.flatnonzero(run.fingerprints[at] == wanted)
            found |= _sightings(hits, run.offsets[at[hits]], run.times_ms[at[hits]])
        return found

    def _keep(self, run: Run) -> None:
        # Twice as large at least is each than the one after it, so there are as many as the number of ids has digits in base two.
        while self._runs and len(self._runs[-1].fingerprints) <= 2 * len(run.fingerprints):
            both = Run(*(np.concatenate(pair) for pair in zip(self._runs.pop(), run, strict=True)))
            ordered = _picked(both, np.argsort(both.fingerprints, kind="stable"))
            # Of equal ones the last stays.
            run = _picked(ordered, np.append(ordered.fingerprints[1:] != ordered.fingerprints[:-1], True))
        self._runs.append(run)


def _picked(run: Run, which: NDArray[Any]) -> Run:
    return Run(run.fingerprints[which], run.offsets[which], run.times_ms[which])


def _sightings(numbers: Numbers, offsets: Numbers, times_ms: Numbers) -> dict[int, Sighting]:
    return dict(zip(numbers.tolist(), zip(offsets.tolist(), times_ms.tolist(), strict=True), strict=True))
