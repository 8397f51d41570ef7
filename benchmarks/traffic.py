"""Who watches and asks meanwhile, in a process of its own: nothing else that a benchmark does holds it up.

`python -m benchmarks.traffic URL` posts views and asks for boards until its input ends, then prints how long each board took, in seconds,
and what failed, as JSON.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
import orjson
import uvloop

A_SECOND = 20  # writes, and as many reads
LIVE = [f"live-{number}" for number in range(100)]
"""The films that are watched."""


class Traffic:
    """How long each board took, in seconds, and what failed; known once it has ended."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed: list[str] = []


@asynccontextmanager
async def traffic(url: str) -> AsyncIterator[Traffic]:
    """As long as this lasts."""
    seen = Traffic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.traffic", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield seen
    finally:
        said, _ = await process.communicate(b"")  # which closes its input
    if process.returncode:
        raise RuntimeError("the traffic beside it ended")
    seen.seconds, seen.failed = orjson.loads(said)


async def main(url: str) -> None:
    seen = Traffic()
    async with (
        aiohttp.ClientSession(url, raise_for_status=True) as http,
        asyncio.TaskGroup() as requests,
    ):

        async def write(number: int) -> None:
            async with http.post(f"/api/videos/{LIVE[number % len(LIVE)]}/views", json={}) as answer:
                await answer.read()

        async def read(number: int) -> None:
            timeframe = ("all_time", "month", "day")[number % 3]
            began = time.monotonic()
            async with http.get(f"/api/analytics/top?k=10&timeframe={timeframe}") as answer:
                if len((await answer.json())["items"]) < 10:
                    seen.failed.append("a partial board")
            seen.seconds.append(time.monotonic() - began)

        async def one(number: int) -> None:
            try:
                await asyncio.gather(write(number), read(number))
            except (aiohttp.ClientError, TimeoutError) as error:
                seen.failed.append(str(error) or type(error).__name__)

        async def go_on() -> None:
            """Each request begins at its moment, whether the earlier ones have ended or not."""
            began = time.monotonic()
            for number in count():
                await asyncio.sleep(max(0.0, began + number / A_SECOND - time.monotonic()))
                requests.create_task(one(number))

        going = asyncio.create_task(go_on())
        await asyncio.to_thread(sys.stdin.buffer.read)
        going.cancel()
    sys.stdout.buffer.write(orjson.dumps([seen.seconds, seen.failed]))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
