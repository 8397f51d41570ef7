"""Where to resume: the positions again, where a player can read them in a fraction of a millisecond."""

from collections.abc import Iterator

from projections.changes import Change
from projections.positions import remember
from projections.projection import Projection
from schemas.events import PositionUpdated

resume = Projection("resume", version=1, topics=("positions",))


@resume.on
def remember_position(event: PositionUpdated) -> Iterator[Change]:
    yield from remember(event, "resume")
