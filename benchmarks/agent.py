"""A baseline: a Faust agent that takes views one by one and awaits Redis for each. `python -m benchmarks.agent RECORDS`"""

import os
import sys
import tempfile
import time
import uuid
from typing import Any

import faust
import orjson

from compose.connections import open_redis
from compose.settings import settings
from projections.leaderboard import WINDOWS

records = int(sys.argv[1])
run = uuid.uuid4().hex
app = faust.App(
    f"{settings().prefix}baseline_{run}",
    broker=f"kafka://{settings().kafka_bootstrap}",
    store="memory://",
    topic_disable_leader=True,
    web_enabled=False,
    datadir=tempfile.mkdtemp(),
    consumer_auto_offset_reset="earliest",
)
views = app.topic(settings().named("views"), value_serializer="raw")


@app.agent(views)
async def count(values: Any) -> None:
    """Each id once, each view in six sorted sets."""
    async with open_redis(settings()) as redis:
        prefix, taken, began, cpu = f"{settings().prefix}baseline:{run}", 0, time.monotonic(), time.process_time()
        async for value in values:
            view = orjson.loads(value)
            if await redis.set(f"{prefix}:seen:{view['view_id']}", 1, nx=True, ex=21_600):
                async with redis.pipeline(transaction=False) as pipeline:
                    for window in WINDOWS:
                        pipeline.zincrby(f"{prefix}:{window.name}", 1, view["video_id"])
                    await pipeline.execute()
            taken += 1
            if taken == records:
                # Faust takes what is printed for a line of its log.
                figures = f"\nmeasured {records / (time.monotonic() - began)} {time.process_time() - cpu}\n"
                os.write(1, figures.encode())
                os._exit(0)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel", "error"]
    app.main()
