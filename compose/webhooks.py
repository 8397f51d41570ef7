"""Webhooks as their subscribers manage them: who is told of which events, and from where on."""

import base64
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from compose.outgoing import SECRET_PREFIX
from projections.sinks.postgres import reaching_postgres
from schemas.log import Place

MOST_WEBHOOKS = 100  # each has a reader of its own
SECRET_BYTES = 24

State = Literal["active", "paused", "disabled"]

COLUMNS = "id, url, types, description, state, why, created_at"
# Whoever delivers holds an older claim from now on, and goes no further.
ANEW = "claim = claim + 1, worker = null, expires_at = null"
CLEARED = "attempts = 0, failing_since = null, not_before = null"


class Webhook(NamedTuple):
    """A subscription. `why` says why it is paused or disabled."""

    id: str
    url: str
    types: Sequence[str] | None
    description: str | None
    state: State
    why: str | None
    created_at: datetime


class Attempt(NamedTuple):
    """One call to a subscriber, and what came of it: a status, or an error in words."""

    event_id: str
    event_type: str
    place: Place
    attempt: int
    attempted_at: datetime
    took_ms: float
    status: int | None
    error: str | None


class TooManyWebhooks(Exception):
    """There are as many as there may be."""


class Webhooks:
    """The table of subscriptions. Raises StoreUnavailable when Postgres is down."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def create(
        self, url: str, types: Sequence[str] | None, description: str | None, cursor: Iterable[Place]
    ) -> tuple[Webhook, str]:
        """A subscription that begins at `cursor`, and its secret. Raises TooManyWebhooks."""
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("lock table webhooks in share row exclusive mode")
                if await connection.fetchval("select count(*) from webhooks") >= MOST_WEBHOOKS:
                    raise TooManyWebhooks(f"there are {MOST_WEBHOOKS} webhooks already, and no more may be")
                row = await connection.fetchrow(
                    f"insert into webhooks (id, url, types, description, secret) values ($1, $2, $3, $4, $5) returning {COLUMNS}",
                    secrets.token_urlsafe(12),
                    url,
                    types,
                    description,
                    secret,
                )
                await _move(connection, row["id"], cursor)
        return Webhook(*row), secret

    async def all(self) -> list[Webhook]:
        """Every subscription, the oldest first."""
        with reaching_postgres():
            return [
                Webhook(*row)
                for row in await self._pool.fetch(f"select {COLUMNS} from webhooks order by created_at, id")
            ]

    async def find(self, webhook_id: str) -> Webhook | None:
        with reaching_postgres():
            row = await self._pool.fetchrow(f"select {COLUMNS} from webhooks where id = $1", webhook_id)
        return row and Webhook(*row)

    async def secret(self, webhook_id: str) -> str:
        """What its calls are signed with."""
        with reaching_postgres():
            found: str = await self._pool.fetchval("select secret from webhooks where id = $1", webhook_id)
        return found

    async def cursor(self, webhook_id: str) -> list[Place]:
        """The first place of each partition that is not delivered yet."""
        with reaching_postgres():
            rows = await self._pool.fetch(
                "select topic, partition, next_offset from webhook_cursors where webhook_id = $1 order by 1, 2",
                webhook_id,
            )
        return [Place(*row) for row in rows]

    async def delete(self, webhook_id: str) -> None:
        with reaching_postgres():
            await self._pool.execute("delete from webhooks where id = $1", webhook_id)

    async def pause(self, webhook_id: str, why: str) -> None:
        """Deliver nothing until it is resumed; the cursor stays."""
        with reaching_postgres():
            await self._pool.execute(
                f"update webhooks set state = 'paused', why = $2, {ANEW} where id = $1", webhook_id, why
            )

    async def resume(self, webhook_id: str, cursor: Iterable[Place] = ()) -> None:
        """Deliver from `cursor` on, of partitions that it does not name from where they stand; what failed is tried at once."""
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                # The row's lock first: whoever delivers writes no cursor behind our back.
                await connection.execute(
                    f"update webhooks set state = 'active', why = null, {ANEW} where id = $1", webhook_id
                )
                await connection.execute(f"update webhook_cursors set {CLEARED} where webhook_id = $1", webhook_id)
                await _move(connection, webhook_id, cursor)

    async def attempts(self, webhook_id: str, limit: int) -> list[Attempt]:
        """The last attempts, the newest first."""
        with reaching_postgres():
            rows = await self._pool.fetch(
                """
                select event_id, event_type, topic, partition, log_offset, attempt, attempted_at, took_ms, status, error
                from webhook_attempts where webhook_id = $1 order by number desc limit $2
                """,
                webhook_id,
                limit,
            )
        return [
            Attempt(
                place=Place(row["topic"], row["partition"], row["log_offset"]),
                **{name: row[name] for name in Attempt._fields if name != "place"},
            )
            for row in rows
        ]


async def _move(connection: Any, webhook_id: str, cursor: Iterable[Place]) -> None:
    await connection.executemany(
        """
        insert into webhook_cursors (webhook_id, topic, partition, next_offset) values ($1, $2, $3, $4)
        on conflict (webhook_id, topic, partition) do update set next_offset = excluded.next_offset
        """,
        [(webhook_id, *place) for place in cursor],
    )
