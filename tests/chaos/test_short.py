"""The short form of `make chaos`, for every run of the tests."""

import os

import pytest

from tests.chaos.run import OUTPUT, run
from tests.chaos.scenario import FOLDER, read_scenario

SEED = int(os.environ.get("ET_SEED", "1"))


@pytest.mark.timeout(900)
async def test_nothing_is_lost_and_nothing_counted_twice_while_processes_die_and_freeze() -> None:
    """On servers of its own: what it kills is nobody else's."""
    short = read_scenario(FOLDER / "short.yaml")
    outcome = await run(short, SEED, short.seconds, OUTPUT / "short", print)
    assert outcome.broken == []
    assert len(outcome.outages) == len(short.faults)
