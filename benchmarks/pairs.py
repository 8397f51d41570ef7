"""Ours and its baselines, in turns: a figure alone says nothing, since the machine has other work."""

import statistics
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

PAIRS = 3


class Measured(NamedTuple):
    """One run: how many a second, the CPU seconds that the server spent, and what was wrong with the answers, if anything."""

    per_second: float
    cpu_seconds: float
    wrong: str = ""


class Comparison(NamedTuple):
    """The medians of three pairs."""

    name: str
    unit: str
    ours: list[Measured]
    baseline_name: str
    baseline: list[Measured]

    @property
    def wrong(self) -> str:
        """What was wrong in any of the runs."""
        return "; ".join(sorted({run.wrong for run in (*self.ours, *self.baseline) if run.wrong}))


Run = Callable[[], Awaitable[Measured]]


async def alternate(name: str, unit: str, ours: Run, baselines: Mapping[str, Run]) -> list[Comparison]:
    """Runs ours and each of the baselines in turns, three times each."""
    our_runs: list[Measured] = []
    theirs: dict[str, list[Measured]] = {baseline: [] for baseline in baselines}
    for _ in range(PAIRS):
        our_runs.append(await ours())
        for baseline, run in baselines.items():
            theirs[baseline].append(await run())
    return [Comparison(name, unit, our_runs, baseline, runs) for baseline, runs in theirs.items()]


def show(comparisons: list[Comparison]) -> None:
    """A table: both figures, the CPU behind them, the verdict; no ratio where an answer was wrong."""
    table = Table(title=f"medians of {PAIRS} pairs, in turns")
    for column in ("what", "ours", "CPU s", "baseline", "its figure", "CPU s", "ours / baseline", "answers"):
        table.add_column(column, justify="right" if column not in ("what", "baseline", "answers") else "left")
    for comparison in comparisons:
        ours, theirs = (
            statistics.median(m.per_second for m in runs) for runs in (comparison.ours, comparison.baseline)
        )
        our_cpu, their_cpu = (
            statistics.median(m.cpu_seconds for m in runs) for runs in (comparison.ours, comparison.baseline)
        )
        table.add_row(
            comparison.name,
            f"{ours:,.0f} {comparison.unit}",
            f"{our_cpu:.2f}",
            comparison.baseline_name,
            f"{theirs:,.0f} {comparison.unit}",
            f"{their_cpu:.2f}",
            "—" if comparison.wrong else f"{ours / theirs:.2f}",
            comparison.wrong or "right",
        )
    Console(width=160).print(table)
