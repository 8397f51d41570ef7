"""`make bench`: prints ours and its baseline side by side, on the stack that `make up` has started."""

import asyncio
import os
import sys

import uvloop

from benchmarks.fold import compare_fold
from benchmarks.pairs import show
from benchmarks.reads import compare_segment, compare_top
from compose.local.stack import ROOT, Stack
from compose.settings import settings


async def main() -> None:
    stack = Stack(ROOT / ".stack")
    os.environ |= stack.endpoints
    gateway_pid = int(stack.pid_file("gateway").read_text())
    here = settings()
    show([await compare_top(here, gateway_pid), await compare_segment(here, gateway_pid), await compare_fold(here)])


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except (FileNotFoundError, RuntimeError, OSError) as error:
        sys.exit(f"the benchmark ended: {error}; it needs `make up` first")
    except asyncio.CancelledError:
        sys.exit(130)
