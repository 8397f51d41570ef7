"""The contract of every sink: changes and checkpoint move in one step, or neither does."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from projections.changes import Change
from schemas.log import Place


class LogIdentity(NamedTuple):
    """Which log a checkpoint speaks of, so that a re-created topic or another cluster is never mistaken for it."""

    cluster_id: str
    topic_id: str
    partitions: int


class Checkpoint(NamedTuple):
    """How far a projection has folded one partition: `next_offset` is the first not yet applied."""

    place: Place
    log: LogIdentity

    @property
    def next_offset(self) -> int:
        return self.place.offset


class Step(NamedTuple):
    """How far a checkpoint has moved, and the name of the step that moved it, if it has one."""

    next_offset: int
    name: str | None


class StoreUnavailable(Exception):
    """The store cannot be written just now. The partition waits and tries again; nothing was lost and nothing is parked."""

    def __init__(self, store: str, why: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(f"{store} is unavailable: {why}")
        self.retry_after_seconds = retry_after_seconds


class CheckpointMoved(Exception):
    """This checkpoint is no longer where it was read: the batch is dropped, the checkpoint read again."""

    def __init__(self, projection: str, expected: Place) -> None:
        super().__init__(f"{projection} is no longer at {expected}")


class ChangeRefused(Exception):
    """The store refuses a change that no retry can mend (a mapping it contradicts, a key of a wrong type)."""

    def __init__(self, projection: str, changes: Sequence[Change], why: str) -> None:
        super().__init__(f"{projection}: the store refuses {len(changes)} changes: {why}")
        self.changes = changes


class Sink(Protocol):
    """One projection's state in one store, of one version. Handed an open client; opens and closes nothing.

    Every method raises StoreUnavailable while the store is down, with nothing changed (or with a change whose acknowledgement was lost,
    which `apply` called again with the same places recognises: it then raises CheckpointMoved, and the checkpoint read again tells).
    """

    needs_offsets: bool
    """Whether `apply` has to be told `offsets`, so that the changes come event by event."""

    async def prepare(self) -> None:
        """Create this version's tables, index or keys where they are missing; called by any number of workers at once."""

    async def checkpoint(self, topic: str, partition: int, log: LogIdentity) -> Checkpoint:
        """How far this partition is folded; on the first call it is set at offset 0 of `log`. Never moves an existing one."""

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        """Write `changes` and move the checkpoint of `expected`'s partition from `expected.offset` to `next_offset`, in one step.

        Raises CheckpointMoved, with nothing written, when it is not at `expected`; ChangeRefused, with nothing moved.

        `offsets` tells the offset of the event behind each change, ascending. A sink whose state lies in several shards, each with its
        own checkpoint, needs them to go on after a worker died between two of them; others have no use for them.

        `step` names the step, for who has written down elsewhere what else it does: `newest_step` tells it once it is taken, and until
        the next one is. A step of the topic `decisions` may write to what other topics' steps wrote.
        """

    def condensed(self, changes: Sequence[Change]) -> Sequence[Change]:
        """The same effect, whenever it is applied, in fewer rows where this store makes no difference between some of them."""

    async def newest_step(self, topic: str, partition: int) -> Step:
        """The step that moved this checkpoint to where it is; offset 0 and no name before there is one."""

    async def tick(self, now: datetime) -> None:
        """Let time pass: what rolls out of a window leaves it, although no event comes. Most sinks have nothing to do."""

    async def drop(self) -> None:
        """Remove this version's state and checkpoints."""
