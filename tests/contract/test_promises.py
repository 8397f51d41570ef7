"""What was shipped once is kept: a checkout in which a promise is broken fails `make check`, and nothing is overwritten."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VIEWED = "schemas/published/entertainmenttime.video.viewed.v1.json"
GOLDEN = "tests/golden/entertainmenttime.video.viewed.v1.json"


class Checkout:
    """A copy of what `python -m schemas` reads and writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "schemas", folder / "schemas", ignore=leave_out)
        shutil.copytree(ROOT / "tests/golden", folder / "tests/golden")
        shutil.copy(ROOT / "streams.yaml", folder)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.suffix in (".json", ".yaml", ".txt")}

    def schemas(self, *arguments: str) -> tuple[int, str]:
        """Runs `python -m schemas` there; what it answers and what it says."""
        return self.python("-m", "schemas", *arguments)

    def python(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-B", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_published_files_are_fresh_and_every_promise_is_kept(checkout: Checkout) -> None:
    assert checkout.schemas("--check") == (0, "")


BREAKS: dict[str, tuple[Callable[[Checkout], None], str]] = {
    "a field is removed": (
        lambda here: here.edit("schemas/events.py", "    watched_seconds: Seconds | None = None\n", ""),
        "entertainmenttime.video.viewed.v1: watched_seconds was removed. "
        "Leave it as it is: give the change to a new type, entertainmenttime.video.viewed.v2, "
        "and add an upcaster to it in schemas/upcasters.py",
    ),
    "a field is required that no record has": (
        lambda here: here.edit("schemas/events.py", "    view_id: Id\n", "    view_id: Id\n    country: Id\n"),
        "entertainmenttime.video.viewed.v1: country is new and required",
    ),
    "a bound is narrowed": (
        lambda here: here.edit("schemas/bounds.py", "MAX_DURATION_SECONDS = 1_000_000", "MAX_DURATION_SECONDS = 1_000"),
        "entertainmenttime.position.updated.v1: position_seconds maximum 1000000 became 1000",
    ),
    "a word of an enumeration is taken away": (
        lambda here: here.edit("schemas/bounds.py", '"playing", "paused", "stopped"', '"playing", "paused"'),
        "entertainmenttime.position.updated.v1: state no longer takes stopped",
    ),
    "an event moves to another topic": (
        lambda here: here.edit("schemas/events.py", 'topic = "positions"', 'topic = "views"'),
        "entertainmenttime.position.updated.v1: x-topic positions became views",
    ),
    "an event is gone": (
        lambda here: here.edit("schemas/events.py", "        VideoViewed,\n", ""),
        "entertainmenttime.video.viewed.v1: is no longer an event of this system",
    ),
    "a published schema is gone": (lambda here: (here.folder / VIEWED).unlink(), f"{VIEWED} is gone"),
    "golden bytes are gone": (lambda here: (here.folder / GOLDEN).unlink(), f"{GOLDEN} is gone"),
    "golden bytes are changed": (lambda here: here.edit(GOLDEN, "heat", "cold"), f"{GOLDEN} was changed"),
    "a topic has more partitions": (
        lambda here: here.edit("streams.yaml", "partitions: 12", "partitions: 24"),
        "views: the topic has 24 partitions and was published with 12",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_no_promise_is_broken_unseen_or_overwritten(checkout: Checkout, broken: str) -> None:
    break_it, told = BREAKS[broken]
    break_it(checkout)
    before = checkout.files()
    status, said = checkout.schemas()
    assert (status, told in said) == (1, True), said
    assert checkout.files() == before


def test_make_check_fails_on_a_broken_promise(checkout: Checkout) -> None:
    BREAKS["a field is removed"][0](checkout)
    status, said = checkout.schemas("--check")
    assert (status, BREAKS["a field is removed"][1] in said) == (1, True)


WIDER = {
    "an optional field": ("schemas/events.py", "    view_id: Id\n", "    view_id: Id\n    country: Id | None = None\n"),
    "a wider bound": ("schemas/bounds.py", "MAX_DURATION_SECONDS = 1_000_000", "MAX_DURATION_SECONDS = 2_000_000"),
    "another word": ("schemas/bounds.py", '"paused", "stopped"', '"paused", "stopped", "stalled"'),
}


@pytest.mark.parametrize("wider", WIDER)
def test_what_breaks_nobody_is_written_with_a_word_on_the_order_of_rolling_out(checkout: Checkout, wider: str) -> None:
    checkout.edit(*WIDER[wider])
    status, said = checkout.schemas()
    assert (status, "roll out those who read it before those who write it" in said) == (0, True)
    assert checkout.schemas("--check") == (0, "")


NEW_VERSION = '''

class VideoWatched(Event):
    """A person watched, second version."""

    type = f"{NAMESPACE}.video.viewed.v2"
    topic = "views"
    key_field = "view_id"

    view_id: Id
    video_id: Id
    watched_ms: int


EVENTS: dict'''


READ_GOLDEN = """
from schemas.envelope import decode
from schemas.usual import decode_usual
from schemas.golden import goldens
from tests.records import Kept

for golden in goldens():
    if golden.type == "entertainmenttime.video.viewed.v1":
        headers = [(name, value.encode()) for name, value in golden.headers.items()]
        record = Kept(golden.key.encode(), golden.value.encode(), headers)
        print((decode_usual([record], "views") or [decode(record, "views")])[0].event)
"""


@pytest.fixture
def evolved(checkout: Checkout) -> Checkout:
    """As `docs/evolving.md` has it: a new type in the place of the old one, and an upcaster."""
    checkout.edit("schemas/events.py", "\nEVENTS: dict", NEW_VERSION)
    checkout.edit("schemas/events.py", "        VideoViewed,\n", "        VideoWatched,\n")
    checkout.edit(
        "schemas/upcasters.py",
        "chained({})",
        'chained({"entertainmenttime.video.viewed.v1": Upcaster("entertainmenttime.video.viewed.v2", '
        'lambda data: data | {"watched_ms": round(1_000 * data.get("watched_seconds", 0))})})',
    )
    return checkout


def test_a_breaking_change_is_a_new_version_beside_the_old_one(evolved: Checkout) -> None:
    older = (evolved.folder / VIEWED).read_bytes()
    status, said = evolved.schemas()
    assert status == 0, said
    assert (evolved.folder / VIEWED).read_bytes() == older
    document = (evolved.folder / "schemas/published/asyncapi.yaml").read_text()
    assert "Older than entertainmenttime.video.viewed.v2, and still read." in document
    status, said = evolved.schemas("--check")
    assert "entertainmenttime.video.viewed.v2 has no golden record in binary mode" in said
    assert "entertainmenttime.video.viewed.v2 has no golden record in structured mode" in said


def test_golden_bytes_of_the_older_version_are_read_as_the_newer_event(evolved: Checkout) -> None:
    evolved.folder.joinpath("tests/records.py").write_text(ROOT.joinpath("tests/records.py").read_text())
    status, said = evolved.python("-c", READ_GOLDEN)
    assert status == 0, said
    assert re.findall(r"view_id='(\S+)'.*watched_ms=(\d+)", said) == [("view-1", "40000"), ("view:2", "0")]
