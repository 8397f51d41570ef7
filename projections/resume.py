"""Where to resume: the positions again, where a player can read them in a fraction of a millisecond."""

from collections.abc import Iterator

from projections.changes import Change, Forget
from projections.positions import remember
from projections.projection import Projection
from schemas.columns import Events
from schemas.events import PositionUpdated, ViewerForgotten

resume = Projection("resume", version=3, topics=("positions", "viewers"))


@resume.on
def remember_positions(updated: Events[PositionUpdated]) -> Iterator[Change]:
    yield from remember(updated, "resume")


@resume.on
def forget_viewer(event: ViewerForgotten) -> Iterator[Change]:
    yield Forget("resume", key={"viewer_id": event.viewer_id})
