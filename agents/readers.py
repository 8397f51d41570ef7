"""Which worker reads which partition, and why one stands still: in Postgres, for who asks about the lag from elsewhere."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from agents.handover import Partition
from agents.standing import Judged
from projections.sinks.postgres import reaching_postgres

FRESH_SECONDS = 20.0  # a worker that has said nothing for as long reads nothing

WRITE = """
insert into readers (projection, version, topic, partition, worker, why, seen_at)
select p, v, t, n, $5, w, clock_timestamp()
from unnest($1::text[], $2::integer[], $3::text[], $4::integer[], $6::text[]) as r(p, v, t, n, w)
on conflict (projection, version, topic, partition)
do update set worker = excluded.worker, why = excluded.why, seen_at = excluded.seen_at
"""
READ = """
select projection, version, topic, partition, worker, why from readers
where seen_at > clock_timestamp() - $1 * interval '1 second'
"""


class Seen(NamedTuple):
    """Who reads a partition, None for nobody; and why it stands still, None when it does not."""

    worker: str | None
    why: str | None


async def write_readers(pool: Any, worker: str, judged: Iterable[Judged]) -> None:
    """`worker` reads these just now. Raises StoreUnavailable."""
    rows = [(one.standing.projection, one.standing.version, *one.standing.partition, one.why) for one in judged]
    if rows:
        projections, versions, topics, partitions, why = map(list, zip(*rows, strict=True))
        with reaching_postgres():
            await pool.execute(WRITE, projections, versions, topics, partitions, worker, why)


async def read_readers(pool: Any) -> dict[tuple[str, Partition], Seen]:
    """Who reads each partition of each version, by the version's full name. Raises StoreUnavailable."""
    with reaching_postgres():
        rows = await pool.fetch(READ, FRESH_SECONDS)
    return {
        (f"{projection}_v{version}", Partition(topic, partition)): Seen(worker, why)
        for projection, version, topic, partition, worker, why in rows
    }
