"""What one local stack is: its folder, ports and secrets, and the settings that point the system at it."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ("kafka", "postgres", "redis", "elasticsearch", "s3")
PROGRAMS = ("gateway", "worker", "media")

# Away from the servers' usual ports, so that the system's own services stay out of the way, and low enough that the
# twin which SeaweedFS opens at +10,000 lies below the range that Linux takes for outgoing connections.
PORTS = {
    "kafka": 19092,
    "kafka_controller": 19093,
    "postgres": 15432,
    "redis": 16379,
    "elasticsearch": 19200,
    "elasticsearch_transport": 19300,
    "s3": 18333,
    "s3_master": 19333,
    "s3_volume": 18080,
    "s3_filer": 18888,
    "s3_admin": 18646,
    "gateway": 8000,
    "worker": 16066,
    "media": 16067,
}
TWIN_OFFSET = 10_000


class CannotStart(Exception):
    """The stack, or a part of it, does not start; the message says why, where to look, and what to do."""


@dataclass(frozen=True)
class Stack:
    """A folder, and all that is derived from it and from what is remembered inside."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def opt(self) -> Path:
        """The programs that Maven brought; shared by every stack of this checkout, and kept by `make clean`."""
        return ROOT / ".stack" / "opt"

    def data(self, name: str) -> Path:
        return self.folder / "data" / name

    def log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    @property
    def ports_file(self) -> Path:
        return self.folder / "ports.json"

    @property
    def endpoints_file(self) -> Path:
        return self.folder / "endpoints.env"

    @cached_property
    def ports(self) -> dict[str, int]:
        """`STACK_KAFKA_PORT` and its like win over what this stack used before, which wins over the defaults.

        Raises CannotStart when such a variable is no port.
        """
        ports = PORTS | (json.loads(self.ports_file.read_text()) if self.ports_file.exists() else {})
        chosen = read_env(ROOT / ".env") | os.environ
        for name in PORTS:
            variable = f"STACK_{name.upper()}_PORT"
            text = chosen.get(variable, "")
            if text and not (text.isdecimal() and 0 < int(text) < 65536):
                raise CannotStart(f"{variable}={text} is no port: give a number from 1 to 65535")
            ports[name] = int(text) if text else ports[name]
        return ports

    @cached_property
    def endpoints(self) -> dict[str, str]:
        """The settings of a program that talks to this stack. Secrets are made once and then read back."""
        old = read_env(self.endpoints_file)
        chosen = read_env(ROOT / ".env") | os.environ
        postgres_password = urlsplit(old.get("ET_POSTGRES_DSN", "")).password or secrets.token_hex(16)
        redis_password = urlsplit(old.get("ET_REDIS_URL", "")).password or secrets.token_hex(16)
        port = self.ports
        return {
            "ET_PREFIX": chosen.get("ET_PREFIX", old.get("ET_PREFIX", "")),
            "ET_SECRET_KEY": old.get("ET_SECRET_KEY") or secrets.token_urlsafe(32),
            "ET_ADMIN_TOKEN": old.get("ET_ADMIN_TOKEN") or secrets.token_urlsafe(32),
            "ET_WEBHOOK_PRIVATE_ADDRESSES": "true",  # whoever tries them out listens here
            "ET_GATEWAY_HOST": "127.0.0.1",
            "ET_GATEWAY_PORT": str(port["gateway"]),
            "ET_GATEWAY_URL": f"http://127.0.0.1:{port['gateway']}",
            "ET_KAFKA_BOOTSTRAP": f"127.0.0.1:{port['kafka']}",
            "ET_POSTGRES_DSN": f"postgresql://entertainmenttime:{postgres_password}@127.0.0.1:{port['postgres']}/entertainmenttime",
            "ET_REDIS_URL": f"redis://default:{redis_password}@127.0.0.1:{port['redis']}/0",
            "ET_ELASTICSEARCH_URL": f"http://127.0.0.1:{port['elasticsearch']}",
            "ET_S3_ENDPOINT": f"http://127.0.0.1:{port['s3']}",
            "ET_S3_ACCESS_KEY": old.get("ET_S3_ACCESS_KEY") or secrets.token_hex(10),
            "ET_S3_SECRET_KEY": old.get("ET_S3_SECRET_KEY") or secrets.token_urlsafe(30),
            "ET_S3_BUCKET": chosen.get("ET_S3_BUCKET", old.get("ET_S3_BUCKET", "entertainmenttime")),
        }

    def password(self, setting: str) -> str:
        """The password inside an address, such as ET_REDIS_URL's."""
        return urlsplit(self.endpoints[setting]).password or ""

    @property
    def environment(self) -> dict[str, str]:
        """For every process of this stack. `STACK_FOLDER` is the mark by which a forgotten one is known again."""
        return {**os.environ, **self.endpoints, "STACK_FOLDER": str(self.folder)}

    def lay_out(self) -> None:
        """Makes the folders and writes down the ports and the endpoints, the latter for the owner's eyes alone."""
        for folder in (self.run, self.folder / "log", self.folder / "data"):
            folder.mkdir(parents=True, exist_ok=True)
        self.ports_file.write_text(json.dumps(self.ports, indent=1))
        text = "".join(f"{name}={value}\n" for name, value in self.endpoints.items())
        if read_text(self.endpoints_file) != text:
            fresh = self.endpoints_file.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(text)
            fresh.replace(self.endpoints_file)


def read_env(file: Path) -> dict[str, str]:
    """`NAME=value` lines; nothing from a file that is not there."""
    values: Mapping[str, str | None] = dotenv_values(file, interpolate=False) if file.exists() else {}
    return {name: value for name, value in values.items() if value is not None}


def read_text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
