"""Load from a process of its own: wrk, bounded in connections and time, to this host alone."""

import asyncio
import re
from collections.abc import Iterable

import psutil

from benchmarks.pairs import Measured

CONNECTIONS = 16
SECONDS = 4


async def requests_per_second(url: str, pids: Iterable[int]) -> Measured:
    """Requests a second to `url`, and the CPU seconds that the processes `pids` spent on them."""
    servers = [psutil.Process(pid) for pid in pids]
    before = _cpu(servers)
    wrk = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "10s", url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await wrk.communicate()
    told = out.decode()
    figure = re.search(r"Requests/sec:\s+([\d.]+)", told)
    wrong = re.search(r"(Socket errors: .*|Non-2xx or 3xx responses: \d+)", told)
    if wrk.returncode or not figure:
        raise RuntimeError(f"wrk against {url} ended with {wrk.returncode}: {told}")
    return Measured(float(figure[1]), _cpu(servers) - before, wrong[1] if wrong else "")


def with_children(pid: int) -> list[int]:
    """A server's process and the workers that it started."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _cpu(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(spent.user + spent.system for spent in times)
