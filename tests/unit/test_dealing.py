"""How the tests are dealt out to several processes."""

from pathlib import Path, PurePosixPath

import pytest

from tests.dealing import FIRST, TOGETHER, share, turn

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("start", [*FIRST, *TOGETHER])
def test_what_is_named_is_there(start: str) -> None:
    assert ROOT.joinpath(start).exists()


def test_a_file_is_dealt_out_whole_and_what_shares_more_with_it() -> None:
    assert share("tests/unit/test_seen.py::test_one[a::b]") == "tests/unit/test_seen.py"
    assert share("tests/browser/test_home.py::test_one") == share("tests/integration/test_readme.py::test_two")


def test_what_waits_for_no_server_begins_before_what_is_long_and_that_before_the_rest() -> None:
    unaided, long, rest = "tests/unit/test_seen.py", "tests/chaos/test_short.py", "tests/contract/test_sinks.py"
    assert turn(PurePosixPath(unaided)) < turn(PurePosixPath(long)) < turn(PurePosixPath(rest))
