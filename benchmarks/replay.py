"""A baseline: views read, decoded, judged and added up in memory, and written nowhere. `python -m benchmarks.replay PARTITION…`"""

import sys
import time
from collections import Counter
from typing import Any

import uvloop

from agents.folding import judge
from agents.handover import Partition
from agents.log_reader import log_of
from agents.reading import read_records
from agents.refolding import rest
from compose.garbage import collect_seldom
from compose.settings import settings
from projections.changes import Tally
from projections.counting import SeenIds
from projections.leaderboard import leaderboard
from schemas.streams import streams


async def main(partitions: list[int]) -> None:
    """Prints the seconds it took and the views that count."""
    topic = streams().topics["views"]
    assert topic.once_within is not None
    counted: Counter[tuple[Any, ...]] = Counter()
    began = time.monotonic()
    for number in partitions:
        partition, seen = Partition("views", number), SeenIds(topic.once_within, start_offset=0)
        async with log_of(settings())(partition) as log:
            async for records in log.read(0, await log.end()):
                judged = judge(seen, read_records(records, partition, topic.partitions).decoded)
                for change in leaderboard.fold(*judged):
                    if isinstance(change, Tally):
                        counted.update(change.counts)
    print(f"measured {time.monotonic() - began} {counted.total()}")


if __name__ == "__main__":
    rest()  # as the rebuild does that it is compared with
    collect_seldom()
    uvloop.run(main(list(map(int, sys.argv[1:]))))
