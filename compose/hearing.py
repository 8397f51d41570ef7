"""What is said on a channel of Redis, by whoever says it."""

import asyncio
import contextlib
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

LISTEN_AGAIN_SECONDS = 1.0


async def hear(redis: Redis, channel: str, told: Callable[[str], None]) -> None:
    """Call `told` with all that is said, until cancelled. What is said while Redis is away is lost."""
    while True:
        with contextlib.suppress(RedisError, OSError):
            async with redis.pubsub() as messages:
                await messages.subscribe(channel)
                while True:
                    # A time-out of its own: the client's would end a subscription that is merely quiet.
                    if message := await messages.get_message(ignore_subscribe_messages=True, timeout=1.0):
                        told(message["data"].decode(errors="replace"))
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)
