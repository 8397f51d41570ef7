"""What a film's document holds."""

from projections.search import search
from projections.spelling import folded
from tests.given import announced, deleted, rows_after, transcoded, uploaded


def test_a_document_holds_what_a_person_looks_for() -> None:
    [row] = rows_after(search, [announced("a", "Heat", genre="Drama"), uploaded("a"), transcoded("a")], "videos")
    assert (row["title"], row["genre"], row["duration_seconds"]) == ("Heat", "Drama", 120.0)


def test_a_deleted_film_keeps_its_document_marked() -> None:
    [row] = rows_after(search, [announced("a"), uploaded("a"), deleted("a"), uploaded("a")], "videos")
    assert row["deleted"] is True


def test_spelling_folds_accents_ligatures_and_case() -> None:
    assert folded("Łódź ÆON Œuvre Straße Ångström ﬁn İ") == "lodz aeon oeuvre strasse angstrom fin i"
