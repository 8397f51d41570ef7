"""A worker dies: how long until another has taken over what it held, and what of that is the seen ids read again."""

import re
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path

from benchmarks.system import System
from benchmarks.views import append_views
from projections.queries.leaderboard import Leaderboard
from projections.queries.versions import Versions
from projections.sinks.sink import StoreUnavailable
from tests.servers import Servers
from tests.working import produce, until, viewed, working

VIEWS = 1_000_000  # of the last hour, all of which whoever takes over has to know
OVER = timedelta(hours=1)
SENT = 240  # views that nobody folds before the take-over, on all partitions
PATIENCE_SECONDS = 600.0


async def measure_takeover(system: System, servers: Servers) -> str:
    """A sentence with the pause, and the refills that the heir logs."""
    expected = await append_views(system, VIEWS, over=OVER)
    board = Leaderboard(system.stores.redis, system.settings.prefix, Versions())
    film, views = expected.most_common(1)[0]

    async def counted(video_id: str, at_least: int) -> bool:
        try:
            return (await board.views(video_id)).all_time >= at_least
        except StoreUnavailable:  # no worker has made a board yet
            return False

    with (
        tempfile.TemporaryDirectory() as folder,
        working(system.settings, servers, Path(folder), "one", "two", ET_LOG_FORMAT="json") as (dying, heir),
    ):
        await until(lambda: counted(film, views), seconds=PATIENCE_SECONDS)
        dying.kill()
        began = time.monotonic()
        await produce(system.settings, [viewed(str(uuid.uuid4()), "after") for _ in range(SENT)])
        await until(lambda: counted("after", SENT), seconds=PATIENCE_SECONDS)
        pause = time.monotonic() - began
        refills = _refills(heir.said)
    exact = (await board.views("after")).all_time == SENT and (await board.views(film)).all_time == views
    return (
        f"take-over with {VIEWS:,} ids of the last hour: {pause:.1f} s from the death to the last of {SENT} views on all partitions; "
        f"the heir read {sum(records for records, _ in refills):,} records again in all its starts, "
        f"at most {max(seconds for _, seconds in refills):.2f} s for a partition; answers {'right' if exact else 'wrong totals'}"
    )


def _refills(said: str) -> list[tuple[int, float]]:
    """Records and seconds of each."""
    lines = [line for line in said.splitlines() if "refilled the seen ids" in line]
    found = [(re.search(r'"records": ?(\d+)', line), re.search(r'"seconds": ?([\d.]+)', line)) for line in lines]
    return [(int(records[1]), float(seconds[1])) for records, seconds in found if records and seconds] or [(0, 0.0)]
