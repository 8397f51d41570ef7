"""The documentation names what there is, and links to what exists."""

import re
from pathlib import Path

import pytest

from schemas.events import EVENTS
from schemas.streams import streams

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_topic_and_projection_is_in_the_architecture() -> None:
    text = ROOT.joinpath("docs/architecture.md").read_text()
    assert [topic for topic in streams().topics if f"`{topic}`" not in text] == []
    assert [projection for projection in streams().projections if projection not in text] == []


def test_every_event_for_other_services_is_in_producing() -> None:
    text = ROOT.joinpath("docs/producing.md").read_text()
    assert [name for name, event in EVENTS.items() if event.topic != "videos" and name not in text] == []


def test_every_command_of_the_worker_is_in_operating() -> None:
    text = ROOT.joinpath("docs/operating.md").read_text()
    modules = ROOT.joinpath("agents/commands").glob("*.py")
    found = "\n".join(module.read_text() for module in modules)
    commands = re.findall(r"@app\.command\(.*?\)\nasync def (\w+)", found, re.S)
    assert commands
    words = [command.replace("_", "-") for command in commands]
    assert [word for word in words if f"faust -A agents {word}" not in text] == []


def test_every_decision_says_why_what_was_measured_and_what_it_costs() -> None:
    headings = ("**Why.**", "**What we measured.**", "**What it costs.**", "**What would change our mind.**")
    lacking = {
        page.name: [heading for heading in headings if heading.strip("*.") not in page.read_text()]
        for page in ROOT.glob("docs/decisions/*.md")
    }
    assert {name: missing for name, missing in lacking.items() if missing} == {}
