"""Postgres: Debian's programs, a cluster of our own."""

import shutil
import signal
from functools import cache
from pathlib import Path

from compose.local.probes import succeeds
from compose.local.process import servants_file
from compose.local.service import Server
from compose.local.stack import CannotStart


@cache
def bin_folder() -> Path:
    """Debian keeps the server's programs off the path. Raises CannotStart when there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    server = found[-1] if found else shutil.which("postgres")
    if server is None:
        raise CannotStart("no Postgres server on this machine: run `make up`, which installs postgresql")
    return Path(server).resolve().parent


class Postgres(Server):
    name = "postgres"
    waits_for = "connections to be accepted"
    ports = ("postgres",)
    stop_signal = signal.SIGINT  # "fast": open transactions are rolled back, and whoever is connected is sent away

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    def prepare(self) -> None:
        super().prepare()
        if (self.folder / "laid-out").exists():
            return
        for left in self.folder.iterdir():  # of a first start that was cut short
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        password = self.folder / "password"
        servants_file(password, self.stack.password("ET_POSTGRES_DSN"))
        initdb = [f"{bin_folder()}/initdb", "-D", str(self.cluster), "-U", "entertainmenttime", f"--pwfile={password}"]
        self.once([*initdb, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
        password.unlink()
        single = [f"{bin_folder()}/postgres", "--single", "-D", str(self.cluster), "postgres"]
        self.once(single, stdin="create database entertainmenttime\n")
        (self.folder / "laid-out").touch()

    def command(self) -> list[str]:
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200")
        return [
            f"{bin_folder()}/postgres",
            "-D",
            str(self.cluster),
            "-p",
            str(self.stack.ports["postgres"]),
            *(f"--{setting}" for setting in settings),
        ]

    async def ready(self) -> bool:
        return await succeeds(
            f"{bin_folder()}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.stack.ports["postgres"])
        )
