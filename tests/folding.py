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

    def passed(self, projection: str, partition: Partition) -> frozenset[int]:
        return frozenset()

    def look_again(self, projection: str, partition: Partition) -> None:
        """Nobody shares it, and what it has judged, it has judged."""
