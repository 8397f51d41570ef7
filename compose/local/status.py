"""What runs, as a table: each process with its port, pid and memory, and how far each projection is behind."""

import json
import subprocess
import sys
from collections import defaultdict
from typing import Any

import psutil
from rich.table import Table

from compose.local.stack import PROGRAMS, ROOT, SERVERS, Stack

LAG_PATIENCE_SECONDS = 20.0
STATES = {
    "healthy": "[green]healthy[/]",
    "behind": "[yellow]behind[/]",
    "stuck": "[red]stuck[/]",
}  # the worst comes last


def process_table(stack: Stack, kept: dict[str, dict[str, Any]]) -> Table:
    """`kept` is the supervisor's answer; empty when there is no supervisor."""
    table = Table("process", "state", "port", "pid", "memory", "up for", "restarts", box=None, pad_edge=False)
    for name in (*SERVERS, *PROGRAMS):
        one = kept.get(name)
        port = str(stack.ports.get(name, "–"))
        if one is None:
            table.add_row(name, "[dim]down[/]", port, "–", "–", "–", "–")
        elif one["pid"] is None:
            table.add_row(name, "[red]died[/], starts again", port, "–", "–", "–", str(one["restarts"]))
        else:
            state = "[green]up[/]" if one["ready"] else "[yellow]starting[/]"
            memory = f"{memory_megabytes(one['pid'])} MB"
            table.add_row(name, state, port, str(one["pid"]), memory, span(one["seconds"]), str(one["restarts"]))
    return table


def memory_megabytes(pid: int) -> int:
    """Resident memory of a process and its children; what they share counts for each."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:
        pass
    return round(total / 1e6)


def span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def lag_table(stack: Stack) -> Table | str:
    """The worker's own figures, or why there are none."""
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "agents", "lag", "--json"],
        env=stack.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LAG_PATIENCE_SECONDS,
    )
    if done.returncode:
        return f"no lag to show: {(done.stderr or done.stdout).strip()[-300:]}"
    table = Table("projection", "state", "behind by", box=None, pad_edge=False)
    by_version: dict[str, list[dict[str, Any]]] = defaultdict(list)
    told = json.loads(done.stdout)
    for partition in told:
        by_version[f"{partition['projection']}_v{partition['version']}"].append(partition)
    for name, partitions in by_version.items():
        events = sum(partition["lag_events"] for partition in partitions)
        oldest = max(partition["lag_seconds"] or 0 for partition in partitions)
        state = max((partition["state"] for partition in partitions), key=list(STATES).index)
        table.add_row(name, STATES[state], f"{events:,} events, {span(oldest)}" if events else "–")
    if sentences := list(dict.fromkeys(partition["why"] for partition in told if partition["why"])):
        table.caption = "\n".join(sentences)
        table.caption_justify = "left"
    return table


def addresses(stack: Stack, samples: dict[str, str]) -> str:
    """Where to look, once everything is up. No table: an address that is cut or wrapped cannot be followed."""
    gateway = stack.endpoints["ET_GATEWAY_URL"]
    rows = {
        f"{gateway}/": "home: what there is, top 10, continue watching",
        f"{gateway}/upload": "upload a film",
        **{f"{gateway}/watch/{video_id}": title for title, video_id in samples.items()},
        f"{gateway}/docs": "the HTTP contract, to try out",
        f"{gateway}/asyncapi.yaml": "the events, for other services",
        f"{gateway}/health": "is everything well?",
        str(stack.endpoints_file): "every server's address, as settings",
        str(stack.ports_file): "the ports: `STACK_GATEWAY_PORT=8001 make up` moves one",
    }
    width = max(map(len, rows))
    return "\n".join(f" {where:<{width}}  {what}" for where, what in rows.items())
