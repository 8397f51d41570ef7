"""What must be there before a server can start: room on the disk, and what Maven brought."""

import shutil

from compose.local.stack import ROOT, CannotStart, Stack

NEEDED_GIGABYTES = 3.0
POM = ROOT / "compose" / "local" / "pom.xml"


def check_disk(stack: Stack, needed_gigabytes: float = NEEDED_GIGABYTES) -> None:
    """Raises CannotStart when there is too little room for the servers' data."""
    place = next(folder for folder in (stack.folder, *stack.folder.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    if free < needed_gigabytes:
        raise CannotStart(f"{place} has {free:.1f} GB free and the stack needs {needed_gigabytes:.0f}: make room there")


def check_fetched(stack: Stack) -> None:
    """Raises CannotStart unless Kafka and Elasticsearch are there in the versions of this checkout."""
    fetched = stack.opt / "fetched-pom.xml"
    if not fetched.exists() or fetched.read_text() != POM.read_text():
        raise CannotStart("Kafka and Elasticsearch are not fetched in these versions: run `make up`, which does it")
