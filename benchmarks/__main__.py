"""`make bench`: prints ours and its baseline side by side, on the stack that `make up` has started."""

import asyncio
import os
import sys

import uvloop

from benchmarks.fold import compare_board
from benchmarks.pairs import show
from benchmarks.reads import compare_segment, compare_top
from benchmarks.system import own_system
from compose.local.stack import ROOT, Stack
from compose.settings import settings


async def main() -> None:
    stack = Stack(ROOT / ".stack")
    os.environ |= stack.endpoints
    gateway_pid = int(stack.pid_file("gateway").read_text())
    here = settings()
    comparisons = [*await compare_top(here, gateway_pid), *await compare_segment(here, gateway_pid)]
    async with own_system(here) as system:
        comparisons += await compare_board(system)
    show(comparisons)


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except (FileNotFoundError, RuntimeError, OSError) as error:
        sys.exit(f"the benchmark ended: {error}; it needs `make up` first")
    except asyncio.CancelledError:
        sys.exit(130)
