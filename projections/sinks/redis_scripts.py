"""Runs scripts in Redis, and tells a server that is down from one that refuses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

from projections.sinks.sink import StoreUnavailable

# Errors by which the server says that it cannot just now. Those that redis-py has classes for come as classes.
PASSING = {"BUSY", "LOADING", "READONLY", "OOM", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"}
PASSING_CLASSES = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.MasterDownError,
    OSError,
)


@contextmanager
def reaching_redis() -> Iterator[None]:
    """Raises StoreUnavailable for whatever may pass by waiting; other errors of the server go through."""
    try:
        yield
    except PASSING_CLASSES as error:
        raise StoreUnavailable("redis", str(error) or type(error).__name__) from error
    except exceptions.ResponseError as error:
        if str(error).partition(" ")[0] in PASSING:
            raise StoreUnavailable("redis", str(error)) from error
        raise


class Script:
    """A script from a file, run by its digest; a server that has forgotten it is taught it again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _text(self) -> str:
        return self._path.read_text()

    @cached_property
    def _digest(self) -> str:
        return sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """What the script returns. Raises StoreUnavailable, or redis-py's ResponseError when the script fails."""
        with reaching_redis():
            try:
                return await redis.evalsha(self._digest, len(keys), *keys, *args)
            except exceptions.NoScriptError:
                return await redis.eval(self._text, len(keys), *keys, *args)
