"""The containers are passed settings that exist, and no secret of ours."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.settings import Settings

ROOT = Path(__file__).parents[2]
KNOWN = {f"ET_{name}".upper() for name in Settings.model_fields}
OURS = ("provisioning", "gateway", "worker", "media")
WATCHING = ("prometheus", "grafana")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(ROOT.joinpath("compose/compose.yaml").read_text())
    services: dict[str, Any] = content["services"]
    return services


@pytest.mark.parametrize("name", OURS)
def test_every_setting_it_passes_exists(services: dict[str, Any], name: str) -> None:
    assert services[name]["environment"].keys() <= KNOWN


@pytest.mark.parametrize("name", OURS)
def test_every_setting_without_a_default_is_passed(services: dict[str, Any], name: str) -> None:
    required = {f"ET_{name}".upper() for name, field in Settings.model_fields.items() if field.is_required()}
    assert required <= services[name]["environment"].keys()


def test_every_published_port_is_bound_to_this_host(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_secret_has_a_default() -> None:
    lines = ROOT.joinpath("compose/compose.yaml").read_text().splitlines()
    secrets = [line for line in lines if any(word in line for word in ("PASSWORD}", "SECRET", "_KEY")) and "${" in line]
    assert secrets
    assert all(":?" in line for line in secrets)


def test_every_server_is_waited_for_until_it_is_healthy(services: dict[str, Any]) -> None:
    awaited = services["provisioning"]["depends_on"]
    assert awaited.keys() == services.keys() - {*OURS, *WATCHING}
    assert all(entry == {"condition": "service_healthy"} for entry in awaited.values())
    assert all("healthcheck" in services[name] for name in awaited)


def test_the_example_holds_every_setting_and_nothing_else() -> None:
    lines = ROOT.joinpath(".env.example").read_text().splitlines()
    names = {
        line.lstrip("# ").split("=", 1)[0] for line in lines if "=" in line and line.lstrip("# ").startswith("ET_")
    }
    assert names == KNOWN


def test_the_image_installs_what_the_whole_lock_holds() -> None:
    def pinned(name: str) -> set[str]:
        return {line.split(" \\")[0] for line in ROOT.joinpath(name).read_text().splitlines() if "==" in line}

    assert pinned("requirements-run.txt") <= pinned("requirements.txt")
