"""The checker of `make chaos` names what is wrong: a check that cannot fail would prove nothing."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.history import Entry, History, longest_gap
from tests.chaos.scenario import FOLDER, Scenario, WrongScenario, course, read_scenario, scenarios
from tests.chaos.truth import Truth, truth_of
from tests.chaos.verdict import Found, judge

AT = "2026-05-01T20:10:00+00:00"
AT_MS = 1_777_666_200_000


def record(partition: int, offset: int, **data: object) -> dict[str, object]:
    """As kcat prints one."""
    return {"partition": partition, "offset": offset, "ts": AT_MS + offset, "payload": json.dumps(data)}


def view(number: int, offset: int, film: str = "heat") -> dict[str, object]:
    return record(0, offset, view_id=f"view-{number}", video_id=film, occurred_at=AT)


def some_truth() -> Truth:
    """Views 1 to 4, the second appended twice; two positions of one viewer; a film."""
    return truth_of(
        [view(1, 0), view(2, 1, "ran"), view(2, 2, "ran"), view(3, 4), view(4, 5, "ran")],
        [
            record(0, offset, viewer_id="ann", video_id="heat", position_seconds=float(number), occurred_at=at)
            for offset, (number, at) in enumerate([(11, AT), (12, "2026-05-01T20:09:00Z")])
        ],
        [record(0, 0, video_id="announced-21", title="Film 21", occurred_at=AT)],
    )


def some_history() -> list[Entry]:
    """Everything was acknowledged, but for view 4 and position 12; view 2 at its second try."""
    entries: list[Entry] = []

    def write(kind: str, number: int, place: tuple[str, int, int] | None) -> None:
        entries.append(Entry(len(entries), "writer", "sent", kind, number))
        what = "acknowledged" if place else "unknown"
        entries.append(Entry(len(entries), "writer", what, kind, number, {"place": place}))  # type: ignore[arg-type]

    for number, place in ((1, ("views", 0, 0)), (2, None), (2, ("views", 0, 2)), (4, None)):
        write("view", number, place)
    write("position", 12, None)
    entries.append(Entry(len(entries), "faults", "over", "all"))
    write("view", 3, ("views", 0, 4))
    write("position", 11, ("positions", 0, 0))
    write("film", 21, ("videos", 0, 0))
    entries.append(Entry(len(entries), "reader", "read", "top", -1, {"source": "leaderboard", "total": 4}))
    return entries


def what_is_right() -> Found:
    return Found(
        raw=[(0, 0, "view-1"), (0, 1, "view-2"), (0, 4, "view-3"), (0, 5, "view-4")],
        refused={(0, 2): 1},
        hours={("heat", "2026-05-01T20"): 2, ("ran", "2026-05-01T20"): 2},
        days={"heat": 2, "ran": 2},
        board={"heat": 2, "ran": 2},
        positions={("ann", "heat"): 11.0},
        resume={("ann", "heat"): 11.0},
        catalogue={"announced-21": "Film 21"},
        search={"announced-21": "Film 21"},
        caught_up_seconds=1.0,
    )


def test_what_is_right_breaks_nothing() -> None:
    assert judge(some_history(), some_truth(), what_is_right(), within_seconds=60) == []


def lost_from_the_log(history: list[Entry], truth: Truth, found: Found) -> None:
    truth.places.pop(("view", 1))


def elsewhere_in_the_log(history: list[Entry], truth: Truth, found: Found) -> None:
    truth.places["view", 1] = [("views", 0, 9)]


def never_sent(history: list[Entry], truth: Truth, found: Found) -> None:
    truth.places["view", 99] = [("views", 0, 9)]


def refused(history: list[Entry], truth: Truth, found: Found) -> None:
    history.append(Entry(99, "writer", "refused", "view", 1, {"why": "404"}))


def counted_twice(history: list[Entry], truth: Truth, found: Found) -> None:
    found.raw.append((0, 2, "view-2"))


def raw_view_lost(history: list[Entry], truth: Truth, found: Found) -> None:
    found.raw.pop()


def phantom(history: list[Entry], truth: Truth, found: Found) -> None:
    found.raw.append((0, 7, "view-7"))


def refusal_lost(history: list[Entry], truth: Truth, found: Found) -> None:
    found.refused.clear()


def hour_too_many(history: list[Entry], truth: Truth, found: Found) -> None:
    found.hours["ran", "2026-05-01T20"] += 1


def day_lost(history: list[Entry], truth: Truth, found: Found) -> None:
    found.days["heat"] -= 1


def board_lost(history: list[Entry], truth: Truth, found: Found) -> None:
    found.board.pop("ran")


def board_too_many(history: list[Entry], truth: Truth, found: Found) -> None:
    found.board["heat"] += 1


def position_older(history: list[Entry], truth: Truth, found: Found) -> None:
    found.positions["ann", "heat"] = 12.0


def resume_lost(history: list[Entry], truth: Truth, found: Found) -> None:
    found.resume.clear()


def film_lost(history: list[Entry], truth: Truth, found: Found) -> None:
    found.catalogue.clear()


def search_phantom(history: list[Entry], truth: Truth, found: Found) -> None:
    found.search["announced-22"] = "Film 22"


def parked(history: list[Entry], truth: Truth, found: Found) -> None:
    found.parked.append("views at 3")


def still_behind(history: list[Entry], truth: Truth, found: Found) -> None:
    found.caught_up_seconds = None


def late(history: list[Entry], truth: Truth, found: Found) -> None:
    found.caught_up_seconds = 61.0


def never_heard_again(history: list[Entry], truth: Truth, found: Found) -> None:
    history.append(Entry(99, "faults", "over", "all"))


def read_too_many(history: list[Entry], truth: Truth, found: Found) -> None:
    history.append(Entry(99, "reader", "read", "top", -1, {"source": "aggregates", "total": 5}))


def read_went_back(history: list[Entry], truth: Truth, found: Found) -> None:
    history.append(Entry(99, "reader", "read", "top", -1, {"source": "leaderboard", "total": 3}))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lost_from_the_log, "acknowledged and not in the log: view 1"),
        (elsewhere_in_the_log, "acknowledged and not in the log: view 1"),
        (never_sent, "in the log and never sent: view 99"),
        (refused, "refused: view 1"),
        (counted_twice, "counted twice: view-2 (2 times)"),
        (raw_view_lost, "a raw view is lost: (0, 5)"),
        (phantom, "a raw view is there that the log does not tell of: (0, 7)"),
        (refusal_lost, "a refused view is lost: (0, 2)"),
        (hour_too_many, "an hour of a film has views too many: ('ran', '2026-05-01T20'): 1"),
        (day_lost, "the days of a film has lost views: heat: 1"),
        (board_lost, "the board of all time has lost views: ran: 2"),
        (board_too_many, "the board of all time has views too many: heat: 1"),
        (position_older, "a position in Postgres is wrong: ('ann', 'heat'): 12.0 instead of 11.0"),
        (resume_lost, "a position in Redis is lost"),
        (film_lost, "a film of the catalogue is lost: announced-21"),
        (search_phantom, "a film of the search index is there that the log does not tell of: announced-22"),
        (parked, "parked, and nothing was poison: views at 3"),
        (still_behind, "the projections never caught up by themselves"),
        (late, "the projections caught up after 61 s, and had 60"),
        (never_heard_again, "no view of theirs was acknowledged once all faults were over: writer"),
        (read_too_many, "the aggregates showed 5 views when 4 had been sent"),
        (read_went_back, "the leaderboard went back from 4 to 3 views"),
    ],
)
def test_what_is_wrong_is_named(spoil: Callable[[list[Entry], Truth, Found], None], sentence: str) -> None:
    history, truth, found = some_history(), copy.deepcopy(some_truth()), what_is_right()
    spoil(history, truth, found)
    broken = judge(history, truth, found, within_seconds=60)
    assert any(sentence in each for each in broken), broken


def test_a_board_may_go_back_once_its_redis_was_killed() -> None:
    history = some_history()
    history.append(Entry(90, "faults", "fault", "kill redis"))
    history.append(Entry(91, "reader", "read", "top", -1, {"source": "leaderboard", "total": 3}))
    assert judge(history, some_truth(), what_is_right(), within_seconds=60) == []


def test_a_history_in_which_nobody_wrote_proves_nothing() -> None:
    broken = judge([], Truth(), Found(caught_up_seconds=1.0), within_seconds=60)
    assert "no view was ever sent: nothing is proven" in broken


def test_the_longest_gap_is_the_one_that_reaches_into_the_fault() -> None:
    moments = [0.0, 5.0, 6.0, 9.0, 9.5]
    assert longest_gap(moments, 6.5, 9.2) == 3.0
    assert longest_gap(moments, 5.5, 5.8) == 1.0
    assert longest_gap(moments, 10.0, 20.0) == 0.0


def test_a_history_is_in_its_file_line_by_line(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.note("writer", "sent", "view", 1)
    history.note("writer", "acknowledged", "view", 1, place=["views", 0, 7])
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [Entry(*json.loads(line)) for line in lines] == history.entries
    history.close()


def test_every_scenario_is_read() -> None:
    assert {"everything", "short"} <= scenarios().keys()


def test_a_seed_draws_one_course() -> None:
    everything = read_scenario(FOLDER / "everything.yaml")
    assert course(everything, 7, 60) == course(everything, 7, 60)
    assert course(everything, 7, 60) != course(everything, 8, 60)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("about: x\nseconds: 9\nfaults: [{do: kill, too: worker, at: 0.5}]", "faults.0.too"),
        ("about: x\nseconds: 9\nfaults: [{do: kill, to: s3, at: 0.5}]", "faults.0.to"),
        ("about: x\nseconds: 9\nfaults: [{do: freeze, to: kafka, at: 0.5}]", "faults.0"),
        ("about: x\nseconds: 9\nfaults: [{do: kill, to: kafka}]", "needs `at`"),
        ("about: x\nseconds: 9\nfaults: [{do: join, to: worker, seconds: 2, at: 0}]", "second worker"),
        ("about: x\nseconds: 9\ndraws: {every_seconds: [5, 2], among: [{do: kill, to: kafka}]}", "draws"),
        ("about: x\nsecond: 9", "second"),
        ("about: [", "no YAML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(WrongScenario, match=r"wrong\.yaml") as wrong:
        read_scenario(path)
    assert named in str(wrong.value)


def test_a_scenario_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(WrongScenario, match="everything"):
        read_scenario(FOLDER / "nothing.yaml")


def test_a_scenario_without_faults_is_traffic_alone() -> None:
    assert course(Scenario(about="calm", seconds=5), 1, 5) == []
