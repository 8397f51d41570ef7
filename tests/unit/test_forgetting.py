"""Whoever is forgotten is so in every projection, whatever the order in which it is heard; what was counted stays counted."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.all import PROJECTIONS
from projections.positions import positions
from projections.projection import Projection
from projections.resume import resume
from projections.sinks.memory import MemorySink
from projections.views import views
from schemas.events import Event, ViewerForgotten
from tests.given import forgotten, recorded, rows_after, stopped, viewed

TABLES = [(views, "views"), (positions, "positions"), (resume, "resume")]

events = st.lists(
    st.one_of(
        st.builds(
            lambda who, film: viewed(film, viewer=who, session="tv"), st.sampled_from("ab"), st.sampled_from("xy")
        ),
        st.builds(
            lambda who, film: stopped(who, film, at="20:10", seconds=9), st.sampled_from("ab"), st.sampled_from("xy")
        ),
    ),
    max_size=12,
)


def one_by_one(projection: Projection, events: Sequence[Event], table: str) -> list[dict[str, Any]]:
    """As batches of one event fold them."""
    sink = MemorySink(projection)
    for decoded in recorded(events):
        for change in projection.fold([decoded]):
            sink.write(change)
    return [dict(row) for row in sink.rows(table)]


@pytest.mark.parametrize(("projection", "table"), TABLES)
@given(events=events, at=st.integers(0, 12), whole=st.booleans())
def test_nothing_tells_of_who_is_forgotten_wherever_in_the_order_that_is_heard(
    projection: Projection, table: str, events: list[Event], at: int, whole: bool
) -> None:
    told = [*events[:at], forgotten("a"), *events[at:]]
    rows = rows_after(projection, told, table) if whole else one_by_one(projection, told, table)
    assert "a" not in {row["viewer_id"] for row in rows}


@pytest.mark.parametrize(("projection", "table"), TABLES)
@given(events=events, at=st.integers(0, 12))
def test_others_are_as_they_were(projection: Projection, table: str, events: list[Event], at: int) -> None:
    told = [*events[:at], forgotten("a"), *events[at:]]
    # A view is known by its place, which one more event in the log moves.
    values = ("viewer_id", "video_id", "position_seconds", "session_id")

    def of_others(found: list[dict[str, Any]]) -> list[str]:
        return sorted(str([row.get(name) for name in values]) for row in found if row["viewer_id"] == "b")

    assert of_others(one_by_one(projection, told, table)) == of_others(one_by_one(projection, events, table))


def test_a_view_of_who_is_forgotten_still_counts_and_tells_no_session() -> None:
    (row,) = rows_after(views, [viewed("heat", viewer="ann", session="tv"), forgotten("ann")])
    assert (row["video_id"], row["viewer_id"], row["session_id"]) == ("heat", None, None)


def test_every_projection_that_knows_viewers_forgets_them() -> None:
    """One that is added and holds a viewer's id belongs in this list."""
    forgetting = {name for name, projection in PROJECTIONS.items() if ViewerForgotten in projection.event_types}
    assert forgetting == {"views", "positions", "resume"}
