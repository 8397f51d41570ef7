"""Which version of each projection answers now: as the registry in Postgres has it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import structlog

from projections.sinks.postgres import reaching_postgres
from projections.sinks.redis_keys import Keys, shards_of
from projections.sinks.sink import StoreUnavailable
from schemas.streams import streams

LOOK_AGAIN_SECONDS = 1.0  # in case a message was lost: messages only make a switch faster
READ = """
select projection, version, fold, shards, state, rule, coalesce(held_until > now(), false) from versions
order by projection, version
"""

State = Literal["building", "ready", "active", "retired"]

logger = structlog.get_logger(__name__)


class Version(NamedTuple):
    """One state of a projection: `number` is part of every name of it, `fold` the number of the fold that makes it."""

    projection: str
    number: int
    fold: int
    shards: int
    state: State
    rule: Mapping[str, Any] | None = None
    is_held: bool = False  # for a moment nobody folds it on, as it is being compared

    @property
    def full_name(self) -> str:
        """As its consumer group and its messages are called: `views_v3`."""
        return f"{self.projection}_v{self.number}"

    def table(self, name: str) -> str:
        """A table of its in Postgres."""
        return f"{name}_v{self.number}"

    def keys(self, prefix: str) -> list[Keys]:
        """The keys of each of its shards in Redis."""
        return shards_of(prefix, self.projection, self.number, self.shards)


def declared(projection: str) -> Version:
    """The version that `streams.yaml` declares, which answers until the registry has another."""
    spec = streams().projections[projection]
    return Version(projection, spec.version, spec.version, spec.shards, "active")


class Versions:
    """The versions as they were last heard of. A projection of which nothing was heard is as declared.

    What is asked within `one_answer` gets the same version of a projection each time, whatever is switched meanwhile.
    """

    def __init__(self, known: Iterable[Version] = ()) -> None:
        self.changed = asyncio.Event()
        self._known: tuple[Version, ...] = ()
        self._active: dict[str, Version] = {}
        self.tell(known)

    def active(self, projection: str) -> Version:
        """The version that answers. Ask once a read: two answers may differ, within `one_answer` not."""
        version = self._active.get(projection) or declared(projection)
        kept = _kept.get()
        return version if kept is None else kept.setdefault(projection, version)

    def known(self, projection: str) -> list[Version]:
        """Every version of the projection, the oldest first; the declared one where nothing was heard."""
        return [version for version in self._known if version.projection == projection] or [declared(projection)]

    def tell(self, known: Iterable[Version]) -> None:
        """From now on these are the versions. Whoever waits for `changed` is woken, if they are others than before."""
        known = tuple(known)
        if known == self._known:
            return
        self._known = known
        self._active = {version.projection: version for version in known if version.state == "active"}
        self.changed.set()
        self.changed = asyncio.Event()

    @contextlib.contextmanager
    def one_answer(self) -> Iterator[None]:
        """What answers first within answers to the end."""
        token = _kept.set({})
        try:
            yield
        finally:
            _kept.reset(token)

    async def follow(self, pool: Any) -> None:
        """Stay up to date until cancelled. While Postgres is away, what was known last holds."""
        while True:
            try:
                with reaching_postgres():
                    async with pool.acquire() as connection:
                        await self._follow(connection)
            except StoreUnavailable as unavailable:
                logger.debug("the versions cannot be looked at", why=str(unavailable))
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _follow(self, connection: Any) -> None:
        told = asyncio.Event()

        def hear(*_: object) -> None:
            told.set()

        name = await connection.fetchval("select current_schema() || '_versions'")
        await connection.add_listener(name, hear)
        try:
            while not connection.is_closed():
                told.clear()
                self.tell(await read_versions(connection))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), LOOK_AGAIN_SECONDS)
        finally:
            await connection.remove_listener(name, hear)


_kept: ContextVar[dict[str, Version] | None] = ContextVar("kept", default=None)


async def read_versions(connection: Any) -> list[Version]:
    """What the registry holds. Raises StoreUnavailable when Postgres is down or holds none."""
    with reaching_postgres():
        return [Version(*row) for row in await connection.fetch(READ)]


@contextlib.asynccontextmanager
async def open_versions(pool: Any) -> AsyncIterator[Versions]:
    """Followed as long as it is open; known from the start, where Postgres answers."""
    versions = Versions()
    with contextlib.suppress(StoreUnavailable):
        versions.tell(await read_versions(pool))
    following = asyncio.create_task(versions.follow(pool))
    try:
        yield versions
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
