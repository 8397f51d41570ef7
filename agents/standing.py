"""Where each partition stands that a worker reads, and the verdict: healthy, behind, or stuck."""

from datetime import datetime
from typing import Literal, NamedTuple

from agents.handover import Partition, Progress

BEHIND_SECONDS = 5.0  # whoever folds live traffic always has some events of the last moment before it

State = Literal["healthy", "behind", "stuck"]


class Standing(NamedTuple):
    """One partition of one version of a projection, as its reader sees it.

    `refusal` is the sentence for which it stands still until an operator helps, `reason` what it waits for by itself, in words: a store
    that is away, another partition that has to come first. Where it `blames_kafka` and Kafka answers others, its own client is at fault.
    """

    projection: str
    version: int
    partition: Partition
    progress: Progress
    refusal: str | None
    reason: str | None
    blames_kafka: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.projection}_v{self.version}"


class Judged(NamedTuple):
    """A standing against the end of the log. `why` is the sentence of one that is stuck, `moved_at` when it moved last.

    `lag_seconds` is the age of the oldest record not folded, 0.0 when there is none, None when the log did not say.
    """

    standing: Standing
    end_offset: int
    lag_seconds: float | None
    moved_at: datetime
    why: str | None

    @property
    def lag_events(self) -> int | None:
        """None while it is not known where the partition stands."""
        next_offset = self.standing.progress.next_offset
        return None if next_offset is None else max(0, self.end_offset - next_offset)

    @property
    def state(self) -> State:
        return state_of(self.lag_events, self.lag_seconds, self.why)


def state_of(lag_events: int | None, lag_seconds: float | None, why: str | None) -> State:
    """Behind is who has not folded what is older than a moment; stuck, who stands still for a reason."""
    if why is not None:
        return "stuck"
    if lag_events == 0 or (lag_seconds is not None and lag_seconds < BEHIND_SECONDS):
        return "healthy"
    return "behind"
