"""Tasks that run for ever, and how they end."""

import asyncio

AGAIN_SECONDS = 0.5


async def end(*tasks: "asyncio.Task[None]") -> None:
    """Cancel `tasks` until they are over: a client library that waits with a time-out of its own may swallow a cancellation."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN_SECONDS)
