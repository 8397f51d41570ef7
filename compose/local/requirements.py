"""What must be there before a server can start: room on the disk, and what Maven brings."""

import shutil
import subprocess

from rich.console import Console

from compose.local.service import program
from compose.local.stack import ROOT, CannotStart, Stack

NEEDED_GIGABYTES = 3.0
POM = ROOT / "compose" / "local" / "pom.xml"


def check_disk(stack: Stack) -> None:
    """Raises CannotStart when there is too little room for the servers' data."""
    place = next(folder for folder in (stack.folder, *stack.folder.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    if free < NEEDED_GIGABYTES:
        raise CannotStart(f"{place} has {free:.1f} GB free and the stack needs {NEEDED_GIGABYTES:.0f}: make room there")


def fetch_servers(stack: Stack, console: Console) -> None:
    """Kafka and Elasticsearch through Maven, unless this pom's were fetched already. Raises CannotStart in Maven's words."""
    fetched = stack.opt / "fetched-pom.xml"
    if fetched.exists() and fetched.read_text() == POM.read_text():
        return
    console.print(" [yellow]…[/] fetching Kafka and Elasticsearch through Maven (150 MB)")
    for old in (*stack.opt.glob("elasticsearch-*"), stack.opt / "kafka"):
        shutil.rmtree(old, ignore_errors=True)
    stack.opt.mkdir(parents=True, exist_ok=True)
    maven = [program("mvn"), "-q", "-B", "-f", str(POM), "process-resources", f"-Dopt={stack.opt}"]
    done = subprocess.run(maven, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        words = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stderr.strip()[-300:])
        raise CannotStart(f"Maven could not fetch the servers: {words}")
    fetched.write_text(POM.read_text())
