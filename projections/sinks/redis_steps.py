"""A batch as short steps: a script holds up everybody else, so it is bounded by the distinct rows that it writes."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from projections.changes import Change

Rows = dict[Any, Any]


class Limits(NamedTuple):
    """How much one call may do: about 10 ms of Redis. Tests make them small, so that little work takes many calls."""

    rows: int = 350  # a film's minute is written to six windows and three buckets at most, a register to one hash
    leaving: int = 500  # films that leave a window
    worth_packing: int = 64  # films in a closed bucket; Redis itself packs a smaller hash


class Move(NamedTuple):
    """A checkpoint's move; `message` is published on `channel` once it is done, if there is one."""

    place: str
    expected: int
    next_offset: int
    channel: str
    message: str


class Step(NamedTuple):
    """Changes merged into distinct rows, which are written together with the checkpoint's move to `next_offset`."""

    changes: Sequence[Change]
    rows: Rows
    next_offset: int


class Refused(Exception):
    """A key of a wrong type is in the way, or a part of the state is lost; `concerns` tells which changes meet it."""

    def __init__(self, why: str, concerns: Callable[[Change], bool] = lambda _: True) -> None:
        super().__init__(why)
        self.concerns = concerns


class Layout(Protocol):
    """How one projection's state lies in one shard."""

    def identity(self, change: Change) -> str:
        """The id by which the state is sharded. Raises Refused for a change that has no place here."""

    def merge(self, rows: Rows, change: Change) -> None:
        """Add `change` to `rows`, so that a script writes each row once. Raises Refused like `identity`."""

    async def write(self, rows: Rows, move: Move) -> bool:
        """Write and move in one step; False, with nothing written, when the checkpoint is not where it is expected. Raises Refused."""

    def beginning(self) -> dict[str, int]:
        """The fields that the state begins with."""

    async def tick(self, now: datetime) -> None:
        """Let time pass. Raises Refused."""


def steps(
    layout: Layout, changes: Sequence[Change], offsets: Sequence[int], next_offset: int, most_rows: int
) -> Iterator[Step]:
    """Cut between two offsets as soon as a step has `most_rows`; the last step ends at `next_offset`, even without a change."""
    first, rows = 0, Rows()
    for i, change in enumerate(changes):
        if len(rows) >= most_rows and offsets[i] != offsets[i - 1]:
            yield Step(changes[first:i], rows, offsets[i])
            first, rows = i, {}
        layout.merge(rows, change)
    yield Step(changes[first:], rows, next_offset)
