"""What a record is read as where its place matters."""

from datetime import UTC, datetime

import pytest

from agents.handover import Partition
from agents.reading import read_records
from schemas.envelope import encode
from schemas.events import ViewRetried
from schemas.log import Place
from tests.records import kept

NOW = datetime(2026, 5, 1, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("view", "is_read"),
    [("views:0:6", True), ("views:0:7", False), ("views:0:8", False), ("views:1:6", False), ("videos:0:6", False)],
)
def test_the_retry_of_a_view_lies_behind_it_on_its_partition(view: str, is_read: bool) -> None:
    mark = ViewRetried(view_id="view", record=view, recorded_at=NOW, decision=1, projections=["views"], occurred_at=NOW)
    record = kept(encode(mark, event_id="e", source="/tests"), partition=0, offset=7, timestamp=0)
    read = read_records([record], Partition("views", 0), 1)
    if is_read:
        assert read.decoded[0].event == mark
    else:
        (poison,) = read.poison
        assert (poison.place, poison.reason) == (Place("views", 0, 7), "invalid-event")
        assert f"record: {view} lies not before its retry" in poison.detail
