"""Where each id was seen last: against a dict, however much is packed away."""

from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from projections.sightings import RECENT, RECENT_BYTES, Sighting, Sightings

batches = st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 30), min_size=1, max_size=20), max_size=20)


def see(kept: Sightings, fingerprints: Iterable[int], first: int, before: Sightings) -> dict[int, Sighting]:
    """The batch whose first record lies at `first`, one every second."""
    seen = np.array(list(fingerprints), dtype=np.uint64)
    offsets = np.arange(first, first + len(seen), dtype=np.int64)
    return kept.see(seen, offsets, offsets * 1_000, before)


def plainly(batch: list[int], first: int, seen: dict[int, int]) -> dict[int, Sighting]:
    found = {}
    for number, fingerprint in enumerate(batch):
        if fingerprint in seen:
            found[number] = seen[fingerprint], seen[fingerprint] * 1_000
        seen[fingerprint] = first + number
    return found


@given(batches, st.integers(0, 20), st.integers(1, 40), st.integers(1, 25))
def test_the_sighting_before_is_found_wherever_it_was_put(
    drawn: list[list[int]], turned_over: int, recent: int, large: int
) -> None:
    before, now, nothing = Sightings(recent, large), Sightings(recent, large), Sightings()
    seen: dict[int, int] = {}
    first = 0
    for number, batch in enumerate(drawn):
        if number == turned_over:
            before.put_away()
        found = see(before, batch, first, nothing) if number < turned_over else see(now, batch, first, before)
        assert found == plainly(batch, first, seen)
        first += len(batch)


def test_an_id_that_was_put_away_takes_24_bytes() -> None:
    kept, nothing = Sightings(), Sightings()
    for first in range(0, 1_000_000, 10_000):
        see(kept, range(first, first + 10_000), first, nothing)
    for first in range(1_000_000, 1_000_000 + RECENT - 1, 100):
        see(kept, range(first, first + 100), first, nothing)
    assert kept.nbytes <= 24 * 1_000_000 + RECENT * RECENT_BYTES
