"""Views by the million in a log, as other services would have appended them."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks.appending import Headers, append
from benchmarks.system import System
from schemas.events import VideoViewed

FILMS = 10_000  # the n-th watched as 1/n (Zipf)
TWICE_EVERY = 20  # five in a hundred are sent twice


async def append_views(system: System, count: int, *, over: timedelta, copied: bool = False) -> Counter[str]:
    """`count` views that occurred evenly `over` the time before now, and how often each film counts.

    `copied` has them carry their original append time, as a copier of topics writes it: then they are recorded when they occurred.
    """
    films = np.random.default_rng(7).choice(FILMS, size=count, p=zipf())
    began = datetime.now(UTC) - over
    await append(system.settings, "views", _records(films.tolist(), began, over / count, copied))
    return Counter({f"film-{film}": int(views) for film, views in enumerate(np.bincount(films)) if views})


def zipf() -> NDArray[np.float64]:
    """The share of each film in the views."""
    weights = 1 / np.arange(1, FILMS + 1)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def records_of(count: int) -> int:
    """How many records `count` views are, with those sent twice."""
    return count + -(-count // TWICE_EVERY)


def _records(
    films: list[int], began: datetime, apart: timedelta, copied: bool
) -> Iterator[tuple[bytes, bytes, Headers]]:
    same: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_source", b"/benchmark"),
        ("ce_type", VideoViewed.type.encode()),
        ("content-type", b"application/json"),
    ]
    for number, film in enumerate(films):
        at = (began + apart * number).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        view_id = f"01990000-0000-7000-8000-{number:012x}"
        value = f'{{"view_id":"{view_id}","video_id":"film-{film}","occurred_at":"{at}"}}'.encode()
        headers = [*same, ("ce_id", view_id.encode())] + ([("ce_recordedtime", at.encode())] if copied else [])
        for _ in range(2 if number % TWICE_EVERY == 0 else 1):
            yield view_id.encode(), value, headers
