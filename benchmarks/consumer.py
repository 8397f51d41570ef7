"""A baseline: a consumer that awaits Redis and Postgres for each view. `python -m benchmarks.consumer RECORDS`"""

import sys
import time
import uuid
from datetime import datetime

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer

from compose.connections import open_postgres, open_redis
from compose.settings import settings
from projections.leaderboard import WINDOWS

INSERT = "insert into {table} values ($1, $2, $3) on conflict do nothing returning true"
COUNT = """
insert into {table}_hourly values ($1, date_trunc('hour', $2::timestamptz), 1)
on conflict (video_id, start) do update set views = {table}_hourly.views + 1
"""
TABLES = """
create table {table} (view_id text primary key, video_id text, occurred_at timestamptz);
create table {table}_hourly (video_id text, start timestamptz, views bigint, primary key (video_id, start))
"""


async def main(records: int) -> None:
    """The first `records` of the topic, one by one; prints how many a second and the CPU seconds spent."""
    run = f"baseline_{uuid.uuid4().hex[:8]}"
    consumer = AIOKafkaConsumer(
        settings().named("views"),
        bootstrap_servers=settings().kafka_bootstrap,
        group_id=f"{settings().prefix}{run}",
        auto_offset_reset="earliest",
    )
    async with open_postgres(settings(), connections=1) as pool, open_redis(settings()) as redis:
        await pool.execute(TABLES.format(table=run))
        await consumer.start()
        taken, began, cpu = 0, 0.0, 0.0
        async for record in consumer:
            began, cpu = began or time.monotonic(), cpu or time.process_time()
            view = orjson.loads(record.value)
            at = datetime.fromisoformat(view["occurred_at"])
            if await pool.fetchval(INSERT.format(table=run), view["view_id"], view["video_id"], at):
                await pool.execute(COUNT.format(table=run), view["video_id"], at)
                async with redis.pipeline(transaction=False) as pipeline:
                    for window in WINDOWS:
                        pipeline.zincrby(f"{settings().prefix}{run}:{window.name}", 1, view["video_id"])
                    await pipeline.execute()
            taken += 1
            if taken == records:
                break
        print(f"measured {records / (time.monotonic() - began)} {time.process_time() - cpu}")
        await consumer.stop()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
