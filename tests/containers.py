"""The five servers in containers, at the addresses and with the secrets that the local processes would have."""

from collections.abc import Collection
from pathlib import Path

from testcontainers.compose import DockerCompose

from compose.local.stack import ROOT, SERVERS, Stack


def start_containers(names: Collection[str], stack: Stack) -> None:
    """Those of compose.yaml; returns when they are healthy."""
    variables = {
        **{name: stack.endpoints[name] for name in ("ET_SECRET_KEY", "ET_S3_ACCESS_KEY", "ET_S3_SECRET_KEY")},
        **{f"{name.upper()}_PORT": str(port) for name, port in stack.ports.items()},
        "POSTGRES_PASSWORD": stack.password("ET_POSTGRES_DSN"),
        "REDIS_PASSWORD": stack.password("ET_REDIS_URL"),
        "COMPOSE_PROJECT_NAME": stack.folder.name,
    }
    _environment(stack).write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    _compose(stack, names).start()


def stop_containers(stack: Stack) -> None:
    """All that were started for the stack, and their data."""
    if _environment(stack).exists():
        _compose(stack, SERVERS).stop()


def _compose(stack: Stack, names: Collection[str]) -> DockerCompose:
    return DockerCompose(ROOT / "compose", "compose.yaml", env_file=str(_environment(stack)), services=list(names))


def _environment(stack: Stack) -> Path:
    return stack.folder / "compose.env"
