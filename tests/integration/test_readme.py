"""The README works as written."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from compose.settings import Settings

ROOT = Path(__file__).parents[2]
TOUR_SECONDS = 120


def blocks_under(heading: str) -> str:
    """The shell of one section of the README, as one script."""
    section = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", ROOT.joinpath("README.md").read_text(), re.S | re.M
    )
    assert section, f"the README has no section {heading!r}"
    blocks = re.findall(r"^```bash\n(.*?)^```", section[1], re.S | re.M)
    assert blocks, f"the section {heading!r} has no shell"
    return "\n".join(blocks)


def run(script: str, settings: Settings, folder: Path) -> str:
    """What the script prints, run in `folder` as in a checkout whose stack is up; a command that fails ends it."""
    addresses = {
        "ET_GATEWAY_URL": str(settings.gateway_url).rstrip("/"),
        "ET_PREFIX": settings.prefix,
        "ET_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "ET_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "ET_REDIS_URL": settings.redis_url.get_secret_value(),
        "ET_ELASTICSEARCH_URL": settings.elasticsearch_url.get_secret_value().rstrip("/"),
    }
    folder.joinpath(".stack").mkdir(exist_ok=True)
    folder.joinpath(".stack/endpoints.env").write_text(
        "".join(f"{name}={value}\n" for name, value in addresses.items())
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | addresses,
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(TOUR_SECONDS + 120)
def test_the_first_tour_works_as_written(system: Settings, tmp_path: Path) -> None:
    told = run(blocks_under("A first tour"), system, tmp_path)
    for quality in ("720p", "480p", "360p", "240p"):
        assert f"{quality}/playlist.m3u8" in told
    assert "1080p" not in told
    assert re.search(r'"total_views": *2\b', told)
    assert re.search(r'"position_seconds": *4\.5', told)


@pytest.mark.timeout(TOUR_SECONDS)
def test_another_service_produces_as_written_and_one_looks_inside(system: Settings, tmp_path: Path) -> None:
    told = run(blocks_under("Produce an event from another service") + blocks_under("Look inside"), system, tmp_path)
    assert "kcat-" in told
    assert "leaderboard" in told
    assert "next_offset" in told
