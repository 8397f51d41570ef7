"""Where each id was seen last: against a dict, however much is packed away."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from projections.sightings import RECENT, RECENT_BYTES, Sighting, Sightings

batches = st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 30), max_size=20), max_size=20)


def seen_last(sought: int, batches: Sequence[Sequence[int]]) -> Sighting | None:
    found = None
    for number, batch in enumerate(batches):
        if sought in batch:
            found = number, number * 1_000
    return found


def keep(kept: Sightings, batches: Sequence[Sequence[int]], first: int = 0) -> None:
    for number, batch in enumerate(batches, start=first):
        for fingerprint in batch:
            kept.recent[fingerprint] = number, number * 1_000
        kept.put_away()


@given(batches, st.integers(0, 20), st.integers(1, 40))
def test_the_latest_sighting_is_found_wherever_it_was_put(
    drawn: list[list[int]], turned_over: int, recent: int
) -> None:
    before, now = Sightings(recent), Sightings(recent)
    keep(before, drawn[:turned_over])
    keep(now, drawn[turned_over:], first=min(turned_over, len(drawn)))
    asked = [fingerprint for batch in drawn for fingerprint in batch] + [31, 2**64 - 1]
    earlier = now.earlier(asked, before)
    assert [now.recent.get(one) or earlier.get(one) for one in asked] == [seen_last(one, drawn) for one in asked]


def test_an_id_that_was_put_away_takes_24_bytes() -> None:
    kept = Sightings()
    keep(kept, [range(first, first + 10_000) for first in range(0, 1_000_000, 10_000)])
    assert len(kept) == 1_000_000
    assert kept.nbytes <= 24 * 1_000_000 + RECENT * RECENT_BYTES
