"""How much of a partition may be parked before it stands still: a release that cannot read the log must not park the world."""

from collections.abc import Iterable, Sequence

from agents.parking import PATIENT, Parked, Undecided
from schemas.log import Place

IN_A_ROW = 100  # a producer's bad minute; a release that cannot read a type reaches it at once
UNDECIDED = 1_000  # of one partition: more than anybody looks through one by one


class Halted(Exception):
    """A partition stands still until an operator has decided, or a release comes that can fold what this one cannot."""


def halting(
    projection: str, parked: Sequence[Parked], event_offsets: Iterable[int], undecided: Sequence[Undecided]
) -> tuple[int, Halted] | None:
    """The offset at which a stretch has to stop because too much of it is parked, and why; None when it may be folded whole.

    What only waits is no error: it is neither counted nor does it end a row.
    """
    errors = {parked.place.offset: parked for parked in parked if parked.reason not in PATIENT}
    if not errors:
        return None
    before = [one.offset for one in undecided if one.reason not in PATIENT]
    total, row = len(before), _row_before(min(errors), before)
    for offset in sorted([*errors, *event_offsets]):
        if offset not in errors:
            row = 0
            continue
        row, total = row + 1, total + 1
        if row > IN_A_ROW or total > UNDECIDED:
            many = f"the {IN_A_ROW:,} records before it are" if row > IN_A_ROW else f"{UNDECIDED:,} of its records are"
            return offset, Halted(_sentence(projection, errors[offset], many))
    return None


def _row_before(first_error: int, before: Sequence[int]) -> int:
    """How many records that nobody has decided about end right before it."""
    known, offset = set(before), first_error - 1
    while offset in known:
        offset -= 1
    return first_error - 1 - offset


def _sentence(projection: str, next_one: Parked, many: str) -> str:
    place: Place = next_one.place
    return (
        f"{projection} stops at {place}, which cannot be folded ({next_one.reason}: {next_one.detail}), as {many} parked and undecided. "
        f"If they are events, deploy a release that can fold them, then `faust -A agents parked retry --all --projection {projection}`; "
        f"if not, `faust -A agents parked discard --all --projection {projection} --topic {place.topic} --why …`; it goes on by itself"
    )
