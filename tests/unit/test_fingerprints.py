"""A fold that changes has to take the next number, and `make check` says so."""

from collections.abc import Iterator

from agents.fingerprints import LOG, GoldenRecord, broken_promises, committed, fingerprint, golden_log, grown
from projections.all import PROJECTIONS
from projections.changes import Change, Upsert
from projections.projection import Projection
from schemas.events import VideoDeleted
from schemas.streams import streams


def removing(version: int, *, hides: bool) -> Projection:
    fold = Projection("catalogue", version=version, topics=("videos",))

    @fold.on
    def delete(event: VideoDeleted) -> Iterator[Change]:
        yield Upsert("videos", key={"video_id": event.video_id}, values={"hidden": hides})

    return fold


def test_every_fold_makes_of_the_golden_log_what_is_written_down() -> None:
    assert broken_promises(PROJECTIONS.values(), committed(), golden_log(), streams()) == []


def test_a_changed_fold_under_the_old_number_is_named_with_what_to_do() -> None:
    log = golden_log()
    written_down = {"catalogue": fingerprint(removing(3, hides=True), log, streams())}
    assert broken_promises([removing(3, hides=True)], written_down, log, streams()) == []
    (words,) = broken_promises([removing(3, hides=False)], written_down, log, streams())
    assert "catalogue" in words
    assert "number 4 in projections/catalogue.py and in streams.yaml" in words
    assert "faust -A agents rebuild catalogue" in words
    assert broken_promises([removing(4, hides=False)], written_down, log, streams()) == []


def test_a_golden_log_that_has_grown_still_holds_what_its_beginning_gave() -> None:
    log = golden_log()
    written_down = {"catalogue": fingerprint(removing(3, hides=True), log[:200], streams())}
    assert broken_promises([removing(3, hides=True)], written_down, log, streams()) == []


def test_every_event_that_a_fold_reads_is_in_the_golden_log() -> None:
    log = golden_log()
    assert grown(log, streams()) == log
    shorter = [
        record
        for record in log
        if b"video.viewed" not in record.value and b"viewed" not in str(record.headers).encode()
    ]
    assert any("viewed" in str(record.headers) for record in grown(shorter, streams())[len(shorter) :])


def test_a_golden_record_is_read_as_it_is_written() -> None:
    for line in LOG.read_bytes().splitlines():
        assert GoldenRecord.read(line).written() == line
