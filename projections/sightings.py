"""Where and when each id was seen last, in 24 bytes an id.

The newest lie in a dict. When they are many they are put away in a *run*: arrays in the order of their fingerprints. Runs of a size are
merged, so that there are few of them, and a whole batch is looked up in each at once.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RECENT = 50_000  # ids in the dict before they are put away: about 10 MB of Python's objects
RECENT_BYTES = 220  # what an id takes there

Sighting = tuple[int, int]
"""Offset, and append time in milliseconds since 1970."""


class Run(NamedTuple):
    """Each fingerprint once, ascending, with its latest sighting."""

    fingerprints: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    times_ms: NDArray[np.int64]

    def find(self, wanted: NDArray[np.uint64]) -> Iterable[tuple[int, Sighting]]:
        """Those of `wanted` that are here, by their index."""
        at = np.minimum(np.searchsorted(self.fingerprints, wanted), len(self.fingerprints) - 1)
        hits = np.nonzero(self.fingerprints[at] == wanted)[0]
        found = zip(self.offsets[at[hits]].tolist(), self.times_ms[at[hits]].tolist(), strict=True)
        return zip(hits.tolist(), found, strict=True)


class Sightings:
    """The latest sighting of each id; `most_recent` of them at most lie in the dict."""

    def __init__(self, most_recent: int = RECENT) -> None:
        self._most_recent = most_recent
        self.recent: dict[int, Sighting] = {}
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return len(self.recent) + sum(len(run.fingerprints) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """About what they take."""
        return len(self.recent) * RECENT_BYTES + sum(array.nbytes for run in self._runs for array in run)

    def earlier(self, fingerprints: Sequence[int], before: "Sightings") -> dict[int, Sighting]:
        """The latest sighting, put away here or anywhere in `before`, of those fingerprints that have one."""
        found: dict[int, Sighting] = {}
        wanted = np.array(fingerprints, dtype=np.uint64)
        # From the newest to the oldest, so the first that is found is the latest.
        _look_into(self._runs, wanted, found)
        if before.recent:
            for number, fingerprint in enumerate(fingerprints):
                if fingerprint in before.recent:
                    found.setdefault(number, before.recent[fingerprint])
        _look_into(before._runs, wanted, found)
        return {fingerprints[number]: sighting for number, sighting in found.items()}

    def put_away(self) -> None:
        """Pack the recent ones, once they are many."""
        if len(self.recent) < self._most_recent:
            return
        sightings = np.array(list(self.recent.values()), dtype=np.int64)
        run = _ordered(np.array(list(self.recent), dtype=np.uint64), sightings[:, 0], sightings[:, 1])
        self.recent.clear()
        # Twice as large at least is each than the one after it, so there are as many as the number of ids has digits in base two.
        while self._runs and len(self._runs[-1].fingerprints) <= 2 * len(run.fingerprints):
            run = _ordered(*(np.concatenate(pair) for pair in zip(self._runs.pop(), run, strict=True)))
        self._runs.append(run)


def _look_into(runs: Sequence[Run], wanted: NDArray[np.uint64], found: dict[int, Sighting]) -> None:
    for run in reversed(runs):
        for number, sighting in run.find(wanted):
            found.setdefault(number, sighting)


def _ordered(fingerprints: NDArray[np.uint64], offsets: NDArray[np.int64], times_ms: NDArray[np.int64]) -> Run:
    """Of equal fingerprints the last one stays."""
    order = np.argsort(fingerprints, kind="stable")
    ordered = fingerprints[order]
    last = order[np.append(ordered[1:] != ordered[:-1], True)]
    return Run(fingerprints[last], offsets[last], times_ms[last])
