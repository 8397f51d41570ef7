"""The registry of versions as it is changed: each change is one step, or refused in words."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import asyncpg
import orjson

from projections.queries.versions import Version, Versions, read_versions
from projections.sinks.postgres import reaching_postgres
from projections.sinks.sink import StoreUnavailable
from schemas.streams import ProjectionSpec, Streams

# How long whatever has read a version may go on doing so after another answers: a request that waits for its write (5 s), then reads.
HELD_SECONDS = 15
HOLD_SECONDS = 15.0  # after which versions are folded on whose comparer has died

REGISTER = """
insert into versions (projection, version, fold, shards, state)
select $1::text, $2::integer, $2::integer, $3::integer, 'active' where not exists (select from versions where projection = $1)
on conflict do nothing
"""
BEGIN = """
insert into versions (projection, version, fold, shards, state, rule)
select $1::text, greatest(max(version), $2::integer) + 1, $2::integer, $3::integer, 'building', $4::text::jsonb
from versions where projection = $1
returning version
"""
SWITCH = """
with before as (
    update versions set state = 'ready', changed_at = now() where projection = $1 and state = 'active' returning version
)
select version from before
"""
ACTIVATE = """
update versions set state = 'active', previous = $3, changed_at = now()
where projection = $1 and version = $2 and state = 'ready' returning version
"""


class NotNow(Exception):
    """What was asked of a projection's versions cannot be; the message says why, and what to do instead."""


class Row(NamedTuple):
    """A version as the registry has it, with what only an operator asks for."""

    version: Version
    previous: int | None
    is_paused: bool
    created_at: Any
    changed_at: Any


class Registry:
    """Raises StoreUnavailable when Postgres is down."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def versions(self) -> Versions:
        return Versions(await read_versions(self._pool))

    async def rows(self, projection: str) -> list[Row]:
        """Every version of the projection, the oldest first."""
        known = {v.number: v for v in await read_versions(self._pool) if v.projection == projection}
        with reaching_postgres():
            rows = await self._pool.fetch(
                "select version, previous, is_paused, created_at, changed_at from versions where projection = $1 order by 1",
                projection,
            )
        return [Row(known[number], *row) for number, *row in rows if number in known]

    async def begin(self, projection: str, spec: ProjectionSpec, rule: Mapping[str, Any] | None = None) -> Version:
        """The next version, to be built by this release's fold. Raises NotNow while another one is being built."""
        written = None if rule is None else orjson.dumps(rule).decode()
        with reaching_postgres():
            try:
                number = await self._pool.fetchval(BEGIN, projection, spec.version, spec.shards, written)
            except asyncpg.UniqueViolationError:
                raise NotNow(await self._being_built(projection)) from None
        return Version(projection, number, spec.version, spec.shards, "building", rule)

    async def _being_built(self, projection: str) -> str:
        number = (await self.building(projection)).number
        return (
            f"{projection} version {number} is being built already: `faust -A agents resume {projection}` goes on with it where nobody is "
            f"at it, `faust -A agents retire {projection} --version {number}` gives it up"
        )

    async def building(self, projection: str) -> Version:
        """The version that is being built. Raises NotNow when there is none."""
        for version in (await self.versions()).known(projection):
            if version.state == "building":
                return version
        raise NotNow(f"no version of {projection} is being built: `faust -A agents rebuild {projection}` begins one")

    @asynccontextmanager
    async def at_work(self, projection: str) -> AsyncIterator[None]:
        """As long as this lasts, nobody else builds the projection. Raises NotNow when somebody is at it."""
        with reaching_postgres():
            async with self._pool.acquire() as connection:
                name = f"rebuild {projection}"
                lock = "select pg_try_advisory_lock(hashtextextended(current_schema() || $1, 0))"
                if not await connection.fetchval(lock, name):
                    raise NotNow(
                        f"{projection} is being built by another process: `faust -A agents pause {projection}` ends that in order"
                    )
                try:
                    yield
                finally:
                    with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
                        await connection.execute("select pg_advisory_unlock_all()")

    async def pause(self, version: Version, is_paused: bool) -> None:
        """Whoever builds the version notices."""
        with reaching_postgres():
            await self._pool.execute(
                "update versions set is_paused = $3 where projection = $1 and version = $2",
                version.projection,
                version.number,
                is_paused,
            )

    async def is_paused(self, version: Version) -> bool:
        """True as well for a version that is no longer being built: it was given up."""
        with reaching_postgres():
            return bool(
                await self._pool.fetchval(
                    """
                    select coalesce(bool_or(is_paused or state <> 'building'), true) from versions
                    where projection = $1 and version = $2
                    """,
                    version.projection,
                    version.number,
                )
            )

    async def move(self, version: Version, *, to: str) -> None:
        """To another state, unless another was faster. Raises NotNow."""
        with reaching_postgres():
            moved = await self._pool.fetchval(
                """
                update versions set state = $4, is_paused = false, changed_at = now()
                where projection = $1 and version = $2 and state = $3 returning version
                """,
                version.projection,
                version.number,
                version.state,
                to,
            )
        if moved is None:
            raise NotNow(
                f"{version.projection} version {version.number} is no longer {version.state}: look at `versions`"
            )

    async def switch(self, projection: str, number: int) -> int:
        """Readers move to this version, which is ready; in one step. Returns the version that answered before. Raises NotNow."""
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                before = await connection.fetchval(SWITCH, projection)
                if not await connection.fetchval(ACTIVATE, projection, number, before):
                    raise NotNow(f"{projection} version {number} is not ready: look at `faust -A agents versions`")
        return int(before)

    async def until_nobody_reads(self, version: Version) -> float:
        """How many seconds it may still be read for: it answered until a moment ago."""
        with reaching_postgres():
            seconds = await self._pool.fetchval(
                """
                select extract(epoch from changed_at - now() + $3 * interval '1 second')::float8 from versions
                where projection = $1 and version = $2
                """,
                version.projection,
                version.number,
                HELD_SECONDS,
            )
        return max(0.0, seconds or 0.0)

    @asynccontextmanager
    async def held(self, projection: str) -> AsyncIterator[None]:
        """As long as this lasts, no worker folds the versions of this projection on, once it has heard of it."""

        async def hold() -> None:
            while True:
                await self._hold(projection, HOLD_SECONDS)
                await asyncio.sleep(HOLD_SECONDS / 3)

        await self._hold(projection, HOLD_SECONDS)
        holding = asyncio.create_task(hold())
        try:
            yield
        finally:
            holding.cancel()
            with suppress(StoreUnavailable):
                await self._hold(projection, 0)

    async def _hold(self, projection: str, seconds: float) -> None:
        with reaching_postgres():
            await self._pool.execute(
                """
                update versions set held_until = now() + $2 * interval '1 second'
                where projection = $1 and state in ('active', 'ready')
                """,
                projection,
                seconds,
            )

    async def forget(self, version: Version) -> None:
        """Its row stays, so that its number is never given out again; what lies under its name is dropped."""
        with reaching_postgres():
            async with self._pool.acquire() as connection, connection.transaction():
                place = (version.projection, version.number)
                for table in ("parked", "parking_steps"):
                    await connection.execute(f"delete from {table} where projection = $1 and version = $2", *place)


async def register_declared(pool: Any, streams: Streams) -> None:
    """A projection that has no version yet begins with the declared one, which answers. Raises StoreUnavailable."""
    with reaching_postgres():
        await pool.executemany(
            REGISTER, [(name, spec.version, spec.shards) for name, spec in streams.projections.items()]
        )


def is_ours(version: Version, streams: Streams) -> bool:
    """Whether this release has the fold that makes this version."""
    return version.fold == streams.projections[version.projection].version


def kept_up(versions: Versions, streams: Streams) -> list[Version]:
    """What a worker of this release folds: versions that answer or could answer, made by a fold of its own."""
    return [
        version
        for name in streams.projections
        for version in versions.known(name)
        if version.state in ("active", "ready") and is_ours(version, streams)
    ]


def left_alone(versions: Versions, streams: Streams) -> list[str]:
    """A sentence for each version that answers and that another release has to fold."""
    return [
        why_left_alone(version, streams)
        for name in streams.projections
        for version in versions.known(name)
        if version.state == "active" and not is_ours(version, streams)
    ]


def why_left_alone(version: Version, streams: Streams) -> str:
    """Of a version that another release has to fold, and the way out."""
    name, number = version.projection, version.number
    way_out = (
        f"`faust -A agents rebuild {name}` and then `faust -A agents switch {name}` bring its successor"
        if version.state == "active"
        else f"`faust -A agents retire {name} --version {number}` drops it"
    )
    return (
        f"{name} version {number} was made by fold {version.fold} and this release has fold "
        f"{streams.projections[name].version}: it is left alone; {way_out}"
    )
