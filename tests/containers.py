"""The five servers in containers, at the addresses and with the secrets that the local processes would have."""

from collections.abc import Collection

from testcontainers.compose import DockerCompose

from compose.local.stack import ROOT, Stack


def start_containers(names: Collection[str], stack: Stack) -> DockerCompose:
    """Those of compose.yaml, healthy. To be stopped by whoever started them."""
    variables = {
        **{name: stack.endpoints[name] for name in ("ET_SECRET_KEY", "ET_S3_ACCESS_KEY", "ET_S3_SECRET_KEY")},
        **{f"{name.upper()}_PORT": str(port) for name, port in stack.ports.items()},
        "POSTGRES_PASSWORD": stack.password("ET_POSTGRES_DSN"),
        "REDIS_PASSWORD": stack.password("ET_REDIS_URL"),
        "COMPOSE_PROJECT_NAME": stack.folder.name,
    }
    environment = stack.folder / "compose.env"
    environment.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    compose = DockerCompose(ROOT / "compose", "compose.yaml", env_file=str(environment), services=list(names))
    compose.start()
    return compose
