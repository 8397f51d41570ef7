"""`make bench`: prints ours and its baseline side by side, on the stack that `make up` has started; `p=board` measures one part."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import uvloop

from benchmarks.fold import compare_board
from benchmarks.freshness import compare_freshness
from benchmarks.memory import compare_memory
from benchmarks.pairs import show
from benchmarks.reads import compare_segment, compare_top
from benchmarks.rebuild import compare_rebuild
from benchmarks.rows import compare_positions, compare_views
from benchmarks.system import own_system, running_system
from benchmarks.takeover import measure_takeover
from compose.local.stack import ROOT, Stack
from compose.settings import Settings, settings


async def main(names: Sequence[str]) -> None:
    """The parts that are named, or all."""
    os.environ |= Stack(ROOT / ".stack").endpoints
    for name in names or PARTS:
        await PARTS[name](settings())


async def reads(here: Settings) -> None:
    gateway_pid = int(Stack(ROOT / ".stack").pid_file("gateway").read_text())
    show([*await compare_top(here, gateway_pid), *await compare_segment(here, gateway_pid)])


async def board(here: Settings) -> None:
    async with own_system(here) as system:
        show(await compare_board(system))


async def rows(here: Settings) -> None:
    async with own_system(here) as system:
        show([*await compare_views(system), *await compare_positions(system)])


async def rebuild(here: Settings) -> None:
    async with own_system(here) as small, running_system() as (system, servers):
        print(await compare_rebuild(small, system, servers))


async def freshness(here: Settings) -> None:
    async with running_system("gateway", "worker") as (system, _):
        print(await compare_freshness(system.settings))


async def takeover(here: Settings) -> None:
    async with running_system() as (system, servers):
        print(await measure_takeover(system, servers))


async def memory(here: Settings) -> None:
    async with own_system(here) as system:
        print(await compare_memory(system))


PARTS: Mapping[str, Callable[[Settings], Awaitable[None]]] = {
    part.__name__: part for part in (reads, board, rows, rebuild, freshness, takeover, memory)
}


if __name__ == "__main__":
    try:
        uvloop.run(main(sys.argv[1:]))
    except (FileNotFoundError, RuntimeError, OSError) as error:
        sys.exit(f"the benchmark ended: {error}; it needs `make up` first")
    except asyncio.CancelledError:
        sys.exit(130)
