"""The life of a film, as the catalogue tells it."""

from itertools import permutations
from typing import Any

from projections.catalogue import COMPLETED, FAILED, PENDING, PROCESSING, catalogue
from schemas.events import Event
from tests.given import aborted, announced, deleted, failed, progressed, rows_after, transcoded, uploaded


def film(*events: Event) -> dict[str, Any]:
    [row] = rows_after(catalogue, events, "videos")
    return row


def test_a_film_that_has_arrived_waits_for_a_worker() -> None:
    row = film(announced("a", "Heat", genre="Drama"), uploaded("a"))
    assert (row["status"], row["progress"], row["title"], row["genre"]) == (PENDING, 0.0, "Heat", "Drama")


def test_a_film_in_work_tells_how_far_it_is() -> None:
    row = film(announced("a"), uploaded("a"), progressed("a", 0.25), progressed("a", 0.5))
    assert (row["status"], row["progress"]) == (PROCESSING, 0.5)


def test_a_transcoded_film_plays() -> None:
    row = film(announced("a"), uploaded("a"), progressed("a", 0.5), transcoded("a"))
    assert (row["status"], row["progress"], row["hls_prefix"], row["duration_seconds"]) == (
        COMPLETED,
        1.0,
        "videos/a/hls/1-a",
        120.0,
    )


def test_a_film_that_failed_says_why() -> None:
    row = film(announced("a"), uploaded("a"), failed("a", "It has sound but no picture."))
    assert (row["status"], row["error"]) == (FAILED, "It has sound but no picture.")


def test_what_an_overtaken_worker_says_later_changes_nothing() -> None:
    done = [announced("a"), uploaded("a"), progressed("a", 0.9, claim=1), transcoded("a", claim=2)]
    for late in (progressed("a", 0.95, claim=1), failed("a", claim=1), transcoded("a", claim=1), uploaded("a")):
        row = film(*done, late)
        assert (row["status"], row["hls_prefix"]) == (COMPLETED, "videos/a/hls/2-a")


def test_a_new_claim_takes_a_failed_film_up_again() -> None:
    row = film(
        announced("a"), uploaded("a"), failed("a", claim=1), progressed("a", 0.1, claim=2), transcoded("a", claim=2)
    )
    assert (row["status"], row["error"]) == (COMPLETED, None)


def test_nothing_revives_a_deleted_film() -> None:
    assert film(announced("a"), uploaded("a"), deleted("a"), transcoded("a"))["deleted_at"] is not None


def test_an_aborted_upload_is_gone() -> None:
    assert film(announced("a"), aborted("a"))["deleted_at"] is not None


def test_whatever_the_order_of_claims_the_last_one_is_told() -> None:
    told = [progressed("a", 0.2, claim=1), progressed("a", 0.4, claim=2), transcoded("a", claim=2)]
    for order in permutations(told):
        assert film(announced("a"), uploaded("a"), *order)["status"] == COMPLETED
