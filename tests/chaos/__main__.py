"""`make chaos`: every scenario, or one, on servers of its own; a table, the seed, and 1 where a promise was broken."""

import argparse
import asyncio
import random
import sys

from rich.console import Console
from rich.table import Table

from tests.chaos.history import READS, WRITES
from tests.chaos.run import OUTPUT, Outcome, run
from tests.chaos.scenario import FOLDER, WrongScenario, read_scenario, scenarios

COLUMNS = (*WRITES, *READS)


def show(console: Console, name: str, seed: int, outcome: Outcome) -> None:
    table = Table(
        "at", "fault", *COLUMNS, title=f"{name}, seed {seed}: the longest stretch without a success, in seconds"
    )
    for fault, gaps in outcome.outages:
        shown = (f"{gaps[kind]:.1f}" for kind in COLUMNS)
        seconds = f" for {fault.more['seconds']:g} s" if fault.more.get("seconds") else ""
        table.add_row(f"{fault.at:.1f}", fault.kind + seconds, *shown)
    console.print(table)
    console.print(", ".join(f"{number:,} {what}" for what, number in outcome.counts.items()))
    if outcome.caught_up_seconds is not None:
        console.print(f"the projections had caught up {outcome.caught_up_seconds:.1f} s after the traffic ended")
    for sentence in outcome.broken:
        console.print(f"[red]broken[/]: {sentence}", highlight=False)
    if not outcome.broken:
        console.print("[green]every promise was kept[/]: acknowledged lost 0, counted twice 0, unknown at most once")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("name", nargs="?", help="a scenario of tests/chaos/scenarios; all without it")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1_000_000), help="draws the faults; drawn itself without it"
    )
    parser.add_argument("--seconds", type=float, help="of traffic, instead of what the scenario says")
    asked = parser.parse_args()
    console = Console(width=140)
    try:
        chosen = {asked.name: read_scenario(FOLDER / f"{asked.name}.yaml")} if asked.name else scenarios()
    except WrongScenario as wrong:
        console.print(f"[red]{wrong}[/]")
        return 2
    broken = 0
    for name, scenario in chosen.items():
        console.print(f"[bold]{name}[/]: {scenario.about}")
        seconds = asked.seconds or scenario.seconds
        outcome = asyncio.run(
            run(scenario, asked.seed, seconds, OUTPUT / name, lambda line: console.print(f"  {line}"))
        )
        show(console, name, asked.seed, outcome)
        broken += bool(outcome.broken)
    console.print(f"histories and logs: {OUTPUT}; again: make chaos seed={asked.seed}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
