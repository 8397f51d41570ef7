"""Poison met while a version is rebuilt: what the version that answers has parked too is known, anything else stops the rebuild."""

from collections.abc import Sequence
from itertools import groupby

from agents.parking import Parked, Parking
from agents.registry import Registry
from agents.stores import Stores
from projections.projection import Projection
from projections.sinks.postgres import reaching_postgres


class NewPoison(Exception):
    """A record that the version that answers has folded cannot be folded any more; the message names it and the way out."""


class KnownPoison(Parking):
    """Parks for the version that is built what was parked for the one that answers, or what that one has not come to yet."""

    def __init__(self, stores: Stores, projection: Projection) -> None:
        super().__init__(stores.pool, projection)
        self._stores = stores
        self._name = projection.name

    async def meet(self, poison: Sequence[Parked]) -> None:
        """Raises NewPoison, with nothing parked, StoreUnavailable."""
        active = (await Registry(self._stores.pool).versions()).active(self._name)
        checkpoints = self._stores.checkpoints(active)
        for (topic, partition), items in groupby(poison, lambda item: item.place[:2]):
            reached = (await checkpoints.next_offsets([(topic, partition)]))[topic, partition]
            met = {item.place.offset: item for item in items if item.place.offset < reached}
            with reaching_postgres():
                known = await self._stores.pool.fetch(
                    """
                    select log_offset from parked
                    where projection = $1 and version = $2 and topic = $3 and partition = $4 and log_offset = any($5)
                    """,
                    self._name,
                    active.number,
                    topic,
                    partition,
                    list(met),
                )
            for row in known:
                del met[row["log_offset"]]
            if met:
                first = met[min(met)]
                raise NewPoison(
                    f"{first.place} cannot be folded ({first.reason}: {first.detail}), and version {active.number} of {self._name} has "
                    f"folded it: mend the fold and go on with `faust -A agents resume {self._name}`"
                )
