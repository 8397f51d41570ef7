"""Loaded by a worker process before all else: its watchdog is impatient, and the next batch of the statistics after the file `HANGS` has
appeared takes it away, and hangs for ever."""

import asyncio
import os
from pathlib import Path
from typing import Any

from agents.watchdog import Watchdog
from projections.sinks.postgres import PostgresSink

HANGS = Path(os.environ["HANGS"])
Watchdog.__init__.__defaults__ = (5.0,)
apply = PostgresSink.apply


async def hang_once(sink: PostgresSink, *changes: Any, **move: Any) -> None:
    if sink._projection.name == "statistics" and HANGS.exists():  # noqa: ASYNC240
        HANGS.unlink()  # noqa: ASYNC240
        await asyncio.Event().wait()
    await apply(sink, *changes, **move)


PostgresSink.apply = hang_once  # type: ignore[method-assign]
