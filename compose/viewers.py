"""The viewer key table: who is behind a pseudonym. Once a row is gone, what the log still holds points to nobody."""

import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from compose.log import Appended, EventLog
from projections.sinks.postgres import reaching_postgres
from projections.sinks.sink import StoreUnavailable
from schemas.events import ViewerForgotten

FORGETTING = UUID("5f0f1a44-3f0c-4b52-9f0b-3c3c9b1f6a11")  # a namespace of our own (RFC 9562 §5.5)
LISTEN_AGAIN_SECONDS = 1.0

FIND = "select pseudonym from viewers where viewer_key = $1"
# On a conflict nothing is returned: then the row of whoever was faster is read.
ADD = "insert into viewers (viewer_key, pseudonym) values ($1, $2) on conflict (viewer_key) do nothing returning pseudonym"


class ViewerKeys:
    """Finds, gives and forgets pseudonyms. Raises StoreUnavailable when Postgres is down."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def find(self, viewer_key: str) -> str | None:
        """The pseudonym behind `viewer_key`, None when there is none yet."""
        with reaching_postgres():
            found: str | None = await self._pool.fetchval(FIND, viewer_key)
        return found

    async def give(self, viewer_key: str) -> str:
        """The pseudonym behind `viewer_key`, made at the first time."""
        found = await self.find(viewer_key)
        while found is None:
            with reaching_postgres():
                made: str | None = await self._pool.fetchval(ADD, viewer_key, secrets.token_urlsafe(16))
            found = made or await self.find(viewer_key)
        return found

    async def given_at(self, viewer_id: str) -> datetime | None:
        """When this pseudonym was given; None for one that this table does not have."""
        with reaching_postgres():
            found: datetime | None = await self._pool.fetchval(
                "select created_at from viewers where pseudonym = $1", viewer_id
            )
        return found

    async def forgotten_at(self, viewer_id: str) -> datetime | None:
        """When this viewer was forgotten; None for one who was not."""
        with reaching_postgres():
            found: datetime | None = await self._pool.fetchval(
                "select forgotten_at from forgotten where viewer_id = $1", viewer_id
            )
        return found

    async def forget(self, viewer_id: str, log: EventLog) -> Appended:
        """Append that the viewer is forgotten, then let the row go. Raises LogUnavailable with nothing done, or StoreUnavailable.

        The event first: killed before the row is gone, the viewer still has the pseudonym and whoever calls again finishes it, with the
        same event. The other way round nobody would know any more what to append. What the viewer does in between is dropped like the
        rest, since the forgotten stay forgotten.
        """
        event = ViewerForgotten(viewer_id=viewer_id, occurred_at=datetime.now(UTC))
        # Made of the pseudonym, so that the same is the same event; not the pseudonym itself, which no table of deliveries is to hold.
        appended = await log.append(event, event_id=str(uuid5(FORGETTING, viewer_id)))
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("insert into forgotten values ($1) on conflict do nothing", viewer_id)
                await connection.execute("delete from viewers where pseudonym = $1", viewer_id)
        return appended

    async def follow(self, gone: Callable[[str | None], None]) -> None:
        """Tell each viewer key whose row is gone, until cancelled; None when some may have gone unheard."""
        while True:
            try:
                with reaching_postgres():
                    async with self._pool.acquire() as connection:
                        await self._listen(connection, gone)
            except StoreUnavailable:
                pass
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def _listen(self, connection: Any, gone: Callable[[str | None], None]) -> None:
        def hear(*told: Any) -> None:
            gone(told[-1])

        name = await connection.fetchval("select current_schema() || '_viewers'")
        await connection.add_listener(name, hear)
        try:
            gone(None)
            while not connection.is_closed():
                await connection.fetchval("select 1")
                await asyncio.sleep(LISTEN_AGAIN_SECONDS)
        finally:
            await connection.remove_listener(name, hear)
