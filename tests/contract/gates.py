"""Clients with gates: before and after everything they ask of a server a test may cut the line, or hold up who asks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from elastic_transport import ConnectionError as ElasticsearchGone
from redis.exceptions import ConnectionError as RedisGone

Gate = Callable[[], Awaitable[None]]


class Gates:
    """Counts the gates that are passed; at number `cut_at` the line is cut, and `hold` may hold up who passes."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.passed = 0
        self.cut_at: int | None = None
        self.hold: Callable[[int], Awaitable[None]] | None = None

    def freeze_at(self, number: int) -> tuple[asyncio.Event, asyncio.Event]:
        """Counted from now, who passes this one freezes there: says so by the first, and waits for the second."""
        frozen, thaw = asyncio.Event(), asyncio.Event()

        async def hold(passed: int) -> None:
            if passed == number:
                frozen.set()
                await thaw.wait()

        self.passed, self.hold = 0, hold
        return frozen, thaw

    async def __call__(self) -> None:
        number = self.passed
        self.passed += 1
        if number == self.cut_at:
            raise self._error
        if self.hold is not None:
            await self.hold(number)


class Gated:
    """Any client whose asynchronous methods are questions to a server; attributes that hold more of them are gated too."""

    def __init__(self, client: Any, gates: Gates) -> None:
        self._client = client
        self._gates = gates

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name in ("indices", "cluster"):
            return Gated(found, self._gates)
        if name == "options":
            return lambda **options: Gated(found(**options), self._gates)
        if name == "pipeline":
            return lambda **options: GatedPipeline(found(**options), self._gates)
        if not callable(found) or name.startswith("_") or name == "scan_iter":
            return found

        async def ask(*args: Any, **kwargs: Any) -> Any:
            await self._gates()
            answer = await found(*args, **kwargs)
            await self._gates()
            return answer

        return ask


class GatedPipeline:
    """A pipeline of Redis: what is put into it waits for its one question."""

    def __init__(self, pipeline: Any, gates: Gates) -> None:
        self._pipeline = pipeline
        self._gates = gates

    async def __aenter__(self) -> "GatedPipeline":
        await self._pipeline.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._pipeline.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(Gated(self._pipeline, self._gates) if name == "execute" else self._pipeline, name)


class GatedPool:
    """An asyncpg pool whose connections, and whose commits, have gates."""

    def __init__(self, pool: Any, gates: Gates) -> None:
        self._pool = pool
        self._gates = gates

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection:
            yield GatedConnection(connection, self._gates)

    def __getattr__(self, name: str) -> Any:
        return getattr(Gated(self._pool, self._gates), name)


class GatedConnection:
    """A connection; a transaction has a gate before its commit and one after it, when its answer may be lost."""

    def __init__(self, connection: Any, gates: Gates) -> None:
        self._connection = connection
        self._gates = gates

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._connection.transaction():
            yield
            await self._gates()
        await self._gates()

    def __getattr__(self, name: str) -> Any:
        return getattr(Gated(self._connection, self._gates), name)


def gone(store: str) -> Exception:
    """What the store's client raises when the line is cut."""
    return {"redis": RedisGone("cut"), "elasticsearch": ElasticsearchGone("cut")}.get(store, OSError("cut"))
