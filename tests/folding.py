"""What a fold is handed beside its sink, in memory."""

from collections.abc import Sequence

from agents.handover import Partition
from agents.parking import Parked
from projections.counting import SeenIds
from projections.sinks.sink import StoreUnavailable
from schemas.streams import streams


class Lot:
    """Parked records in a list; `is_down` as Postgres may be."""

    def __init__(self) -> None:
        self.parked: list[Parked] = []
        self.is_down = False

    async def park(self, parked: Sequence[Parked]) -> None:
        if self.is_down:
            raise StoreUnavailable("postgres", "it is down")
        self.parked += parked


class OneWindow:
    """The seen ids of the one partition."""

    def __init__(self) -> None:
        self.seen = SeenIds(streams().topics["views"].once_within, start_offset=0)

    async def window(self, projection: str, partition: Partition, from_offset: int) -> SeenIds:
        return self.seen
