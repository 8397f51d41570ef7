"""Who waits for one version of a projection to have folded their write."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable

from projections.queries.checkpoints import Checkpoints
from schemas.log import Place

Wanted = tuple[int, "asyncio.Future[None]"]


class Waiting:
    """However many wait, the store is asked one question at a time, about all of them; a move that is told needs no question.

    Told or not, it is looked at every `look_again_seconds`: a message may be lost. Nothing is asked while nobody waits. Whenever somebody
    has to wait `hurry` is called, for whoever folds.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        look_again_seconds: float,
        hurry: Callable[[], None],
    ) -> None:
        self._checkpoints = checkpoints
        self._look_again_seconds = look_again_seconds
        self._hurry = hurry
        self._wanted: dict[tuple[str, int], list[Wanted]] = defaultdict(list)
        self._came = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    @property
    def furthest(self) -> list[Place]:
        """What is waited for: of each partition the last record."""
        return [Place(*lying, max(offset for offset, _ in waiting)) for lying, waiting in self._wanted.items()]

    async def wait(self, places: Iterable[Place]) -> None:
        """Returns once all of `places` are folded. Raises StoreUnavailable when their checkpoints cannot be read."""
        futures = [self._want(place) for place in places]
        try:
            await asyncio.gather(*futures)
        finally:
            for future in futures:
                future.cancel()

    def tell(self, topic: str, partition: int, next_offset: int) -> None:
        """The checkpoint of this partition has come to `next_offset`."""
        waiting = self._wanted.pop((topic, partition), [])
        left = []
        for offset, future in waiting:
            if offset >= next_offset and not future.done():
                left.append((offset, future))
            elif not future.done():
                future.set_result(None)
        if left:
            self._wanted[topic, partition] = left

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _want(self, place: Place) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted[place.topic, place.partition].append((place.offset, future))
        self._came.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return future

    async def _look(self) -> None:
        while self._wanted:
            self._came.clear()
            asked = {partition: list(waiting) for partition, waiting in self._wanted.items()}
            try:
                offsets = await self._checkpoints.next_offsets(asked)
            except Exception as error:
                self._fail(asked, error)
                continue
            for partition, next_offset in offsets.items():
                self.tell(*partition, next_offset)
            if self._wanted:
                self._hurry()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._came.wait(), self._look_again_seconds)

    def _fail(self, asked: dict[tuple[str, int], list[Wanted]], error: Exception) -> None:
        """Those whom the question was about; who came meanwhile has one of their own."""
        for partition, waiting in asked.items():
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            self.tell(*partition, 0)
