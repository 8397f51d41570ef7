"""What a fold is handed beside its sink, in memory."""

from agents.folding import PassedOver
from agents.handover import Partition
from projections.counting import SeenIds
from schemas.streams import streams


class OneWindow:
    """The seen ids of the one partition."""

    def __init__(self) -> None:
        self.seen = SeenIds(streams().topics["views"].once_within, start_offset=0)

    async def window(self, projection: str, partition: Partition, from_offset: int, passed_over: PassedOver) -> SeenIds:
        return self.seen

    def passes_over(self, projection: str, partition: Partition) -> None:
        """Nobody shares it."""

    def unfolded(self, projection: str, partition: Partition) -> None:
        """What it has judged, it has judged."""
