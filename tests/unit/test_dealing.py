"""How the tests are dealt out to several processes, and that a run leaves none behind."""

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from tests.dealing import FIRST, TOGETHER, share, turn
from tests.servers import MARK, Run, end_all_of

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


def test_what_a_killed_process_of_a_run_left_ends_with_the_run_and_nothing_else_does(tmp_path: Path) -> None:
    ours, stacks, others = (
        subprocess.Popen(["sleep", "60"], env=os.environ | environment)
        for environment in (
            {MARK: str(tmp_path)},
            {MARK: str(tmp_path), "STACK_FOLDER": str(tmp_path)},
            {MARK: f"{tmp_path}-2"},
        )
    )
    try:
        end_all_of(Run("local", str(tmp_path), "t_"))
        assert [process.poll() is None for process in (ours, stacks, others)] == [False, True, True]
    finally:
        for process in (ours, stacks, others):
            process.kill()
            process.wait()
