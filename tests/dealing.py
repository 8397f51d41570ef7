"""How a run of several processes deals the tests out: which stay together, and which begin first.

A file stays together, since its tests share what is dear to make, such as a worker that folds all the while. So do those that share
more: the one system, with the films that the browser shows of it, and the environment of another service. Those that start servers of
their own do it one after the other: the machine has the run's to bear as well.
"""

from pathlib import PurePosixPath
from typing import Any

from xdist.scheduler import LoadScopeScheduling

# What waits for no server comes first: meanwhile they start. The longest is the first of all, as it needs nothing but the processor.
UNAIDED = (
    "tests/unit/test_handover.py",
    "tests/unit/",
    "tests/contract/test_promises.py",
    "tests/contract/test_schemas.py",
)
# Then what takes longest, so that none of it is left to one process while the other has nothing more to do.
LONGEST = (
    "tests/chaos/",
    "tests/faults/test_servers.py",
    "tests/faults/",
    "tests/integration/test_worker.py",
    "tests/integration/test_freshness.py",
    "tests/integration/test_replay.py",
    "tests/integration/test_rebuild.py",
    "tests/integration/test_parked.py",
    "tests/integration/test_webhooks.py",
)
# As late as may be without being the last: from here on the whole system runs beside all other tests.
SYSTEM = ("tests/integration/test_openapi.py", "tests/integration/test_readme.py", "tests/browser/")
FIRST = (*UNAIDED, *LONGEST, *SYSTEM)
TOGETHER = {
    **dict.fromkeys(SYSTEM, "the system"),
    "tests/chaos/": "servers of its own",
    "tests/faults/test_servers.py": "servers of its own",
    "tests/contract/test_wheel.py": "another service",
    "tests/integration/test_producing.py": "another service",
}
RUNNING = 2  # a process begins a test once it knows the next one, too


def turn(path: PurePosixPath) -> int:
    """The place of a test file among all; those of one turn stay as they were found."""
    return next((number for number, first in enumerate(FIRST) if str(path).startswith(first)), len(FIRST))


def share(nodeid: str) -> str:
    """What is dealt out at once: the test's file, or the name of several."""
    path = nodeid.partition("::")[0]
    return next((name for start, name in TOGETHER.items() if path.startswith(start)), path)


class Dealing(LoadScopeScheduling):
    """In the order of the turns; a process is given its next share no sooner than it needs it."""

    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)

    def _reschedule(self, node: Any) -> None:
        if not self.workqueue or self._pending_of(self.assigned_work[node]) < RUNNING:
            super()._reschedule(node)
