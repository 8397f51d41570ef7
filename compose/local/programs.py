"""The system's own three processes, and the step before them that creates what they expect to find."""

import asyncio
import sys

from compose.local.probes import http_answers
from compose.local.service import Service
from compose.local.stack import ROOT, CannotStart, Stack


class Gateway(Service):
    name = "gateway"
    waits_for = "GET /health to say ok"
    ports = ("gateway",)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "gateway"]

    async def ready(self) -> bool:
        return await http_answers(self.stack.ports["gateway"], "/health")


class Worker(Service):
    name = "worker"
    waits_for = "GET /live to say ok"
    ports = ("worker",)

    def command(self) -> list[str]:
        faust = [sys.executable, "-m", "faust", "-A", "agents", "--datadir", str(self.stack.data(self.name))]
        return [*faust, "--loop", "uvloop", "worker", "--without-web"]

    def environment(self) -> dict[str, str]:
        """A name that outlives the process, so that its restart is no rebalance."""
        return {"ET_WORKER_ID": "local", "ET_WORKER_METRICS_PORT": str(self.stack.ports["worker"])}

    async def ready(self) -> bool:
        return await http_answers(self.stack.ports["worker"], "/live")


class Media(Service):
    name = "media"
    waits_for = "its sandbox to open, and GET /live to say ok"
    ports = ("media",)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "agents.media"]

    def environment(self) -> dict[str, str]:
        return {"ET_MEDIA_METRICS_PORT": str(self.stack.ports["media"])}

    async def ready(self) -> bool:
        return await http_answers(self.stack.ports["media"], "/live")


async def provision(stack: Stack) -> str:
    """Creates topics, tables, indices and the bucket; returns what it did in a line.

    Raises CannotStart with the refusal in its own words.
    """
    log = stack.log("provisioning")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "compose.provisioning",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=stack.environment,
        cwd=ROOT,
    )
    output, _ = await process.communicate()
    with log.open("ab") as file:
        file.write(output)
    last = output.decode(errors="replace").strip().rsplit("\n", 1)[-1]
    if process.returncode:
        raise CannotStart(f"provisioning failed: {last} (all of it in {log})")
    return last
