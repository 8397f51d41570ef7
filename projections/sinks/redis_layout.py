"""What the two layouts in Redis have in common: changes merged into rows, rows written by a script together with a checkpoint's move."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import orjson

from projections.changes import Change, Single

Rows = dict[Any, Any]
"""Distinct rows, a tuple of plain values to plain values, so that JSON can hold them."""


class Limits(NamedTuple):
    """How much one call may do: a few milliseconds of Redis, as it holds up everybody else. Tests make them small."""

    rows: int = 150  # films, each of which is written to six windows and some buckets, or registers
    leaving: int = 500  # films that leave a window
    worth_packing: int = 64  # films in a closed bucket; Redis itself packs a smaller hash


class Move(NamedTuple):
    """A checkpoint's move from one value to the next; `message` is published on `channel` once it is done, if there is one.

    `step` names the move as a whole; what only writes the next piece of a batch on its way leaves the name alone.
    """

    place: str
    expected: str
    next: str
    channel: str = ""
    message: str = ""
    step: str = ""


def told(moves: Sequence[Move]) -> list[str | bytes]:
    """The moves as scripts take them, and as whoever waits for them is told: the channel and a line each."""
    lines = "\n".join(move.message for move in moves if move.message)
    return [orjson.dumps([(*move[:3], move.step) for move in moves]), moves[0].channel, lines]


class Refused(Exception):
    """Something is in the way of the changes that `concerns` tells, and of no others."""

    def __init__(self, why: str, concerns: Callable[[Change], bool]) -> None:
        super().__init__(why)
        self.concerns = concerns


class Layout(Protocol):
    """How one projection's state lies in one shard."""

    def identity(self, change: Single) -> str:
        """The id by which the state is sharded. Raises Refused for a change that has no place here."""

    async def learn(self) -> None:
        """See anew what `merge` goes by: state that was emptied, or restored from a snapshot, stands at another time."""

    def merge(self, rows: Rows, change: Change) -> None:
        """Add `change` to `rows`, so that a script writes each row once. Raises Refused like `identity`."""

    def condensed(self, change: Change) -> Change:
        """The same in fewer rows, as far as `merge` makes no difference between some of them."""

    def pieces(self, rows: Rows, most: int) -> list[Rows]:
        """The rows, parted so that one call writes about `most` of what costs the server time."""

    def keys(self, rows: Rows) -> dict[str, str]:
        """Every key that `rows` are written to, and its type."""

    def in_the_way(self, key: str, why: str) -> Exception:
        """What to raise for a key that holds something else: Refused, or StoreUnavailable where it is in the way of every change."""

    async def write(self, rows: Rows, moves: Sequence[Move]) -> bool:
        """Write and move in one step; False, with nothing written, when a checkpoint is not where it is expected.

        Raises what `in_the_way` returns.
        """

    def beginning(self) -> dict[str, int]:
        """The fields that the state begins with."""

    async def tick(self, now: datetime) -> None:
        """Let time pass. Raises StoreUnavailable when a part of the state is lost."""
