"""Who delivers to which subscription: a lease in its own row, fenced by a claim number that only grows."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from agents.handover import Partition
from compose.webhooks import Attempt, State
from projections.sinks.postgres import reaching_postgres

LEASE_SECONDS = 10.0
KEPT_ATTEMPTS = 200

CLAIM = """
with free as (
    select id from webhooks where state = 'active' and (expires_at is null or expires_at < now())
    order by expires_at nulls first limit 1 for update skip locked
)
update webhooks w set claim = w.claim + 1, worker = $1, expires_at = now() + $2 * interval '1 second'
from free where w.id = free.id
returning w.id, w.url, w.types, w.secret, w.claim
"""
# The row's lock is held to the end: whoever changes the subscription comes before this step, or after it.
RENEW = """
update webhooks set expires_at = now() + $3 * interval '1 second' where id = $1 and claim = $2 and state = 'active'
returning 1
"""
SAVE = """
insert into webhook_cursors (webhook_id, topic, partition, next_offset, attempts, failing_since, not_before)
select $1, * from unnest($2::text[], $3::integer[], $4::bigint[], $5::integer[], $6::timestamptz[], $7::timestamptz[])
on conflict (webhook_id, topic, partition) do update set
    next_offset = excluded.next_offset, attempts = excluded.attempts,
    failing_since = excluded.failing_since, not_before = excluded.not_before
"""
KEEP_ATTEMPT = """
insert into webhook_attempts (
    webhook_id, event_id, event_type, topic, partition, log_offset, attempt, attempted_at, took_ms, status, error
) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
TRIM = """
delete from webhook_attempts where webhook_id = $1 and number <= (
    select number from webhook_attempts where webhook_id = $1 order by number desc offset $2 limit 1
)
"""


class Cursor(NamedTuple):
    """Where a subscription stands in one partition, and how often its next event has failed since when."""

    next_offset: int
    attempts: int = 0
    failing_since: datetime | None = None
    not_before: datetime | None = None


class Claimed(NamedTuple):
    """A subscription that is ours to deliver to. `types` is None for all of them."""

    id: str
    url: str
    types: frozenset[str] | None
    secret: str
    claim: int


class Claims:
    """The claims of one worker. Raises StoreUnavailable when Postgres cannot answer just now."""

    def __init__(self, pool: Any, worker: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._pool = pool
        self._worker = worker
        self._lease_seconds = lease_seconds

    async def claim(self) -> Claimed | None:
        """A subscription that nobody delivers to, now ours; None when there is none."""
        with reaching_postgres():
            row = await self._pool.fetchrow(CLAIM, self._worker, self._lease_seconds)
        if row is None:
            return None
        types = None if row["types"] is None else frozenset(row["types"])
        return Claimed(row["id"], row["url"], types, row["secret"], row["claim"])

    async def cursors(self, claimed: Claimed) -> dict[Partition, Cursor]:
        """Where it stands; a partition that is not there has nothing delivered yet."""
        with reaching_postgres():
            rows = await self._pool.fetch(
                """
                select topic, partition, next_offset, attempts, failing_since, not_before
                from webhook_cursors where webhook_id = $1
                """,
                claimed.id,
            )
        return {Partition(row["topic"], row["partition"]): Cursor(*row[2:]) for row in rows}

    async def save(self, claimed: Claimed, moved: Mapping[Partition, Cursor], attempts: Iterable[Attempt]) -> bool:
        """Renew the lease, and write how far it has come; False, with nothing written, when the claim is not ours any more."""
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                if not await connection.fetchval(RENEW, claimed.id, claimed.claim, self._lease_seconds):
                    return False
                if moved:
                    places = [partition.topic for partition in moved], [partition.number for partition in moved]
                    await connection.execute(SAVE, claimed.id, *places, *map(list, zip(*moved.values(), strict=True)))
                rows = [(claimed.id, *a[:2], *a.place, *a[3:]) for a in attempts]
                if rows:
                    await connection.executemany(KEEP_ATTEMPT, rows)
                    await connection.execute(TRIM, claimed.id, KEPT_ATTEMPTS)
        return True

    async def stop(self, claimed: Claimed, state: State, why: str) -> None:
        """Deliver no more until somebody resumes it, who is told `why`."""
        with reaching_postgres():
            await self._pool.execute(
                """
                update webhooks set state = $3, why = $4, claim = claim + 1, worker = null, expires_at = null
                where id = $1 and claim = $2
                """,
                claimed.id,
                claimed.claim,
                state,
                why,
            )

    async def give_back(self, claimed: Claimed) -> None:
        """Anyone may go on with it at once."""
        with reaching_postgres():
            await self._pool.execute(
                "update webhooks set worker = null, expires_at = null where id = $1 and claim = $2",
                claimed.id,
                claimed.claim,
            )
