"""What decisions make of the parked records of one partition; pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import cast

from agents.decisions import Ruling, Sighting, ahead
from agents.parking import WAITS_BEHIND, Parked
from projections.counting import COUNTS, Duplicate, FromTheFuture, Verdict
from projections.projection import Refused
from schemas.decoded import Decoded
from schemas.events import VideoViewed
from schemas.log import MILLISECOND, Place, moment_of

FOLDED, DUPLICATE, FUTURE, DISCARDED = "folded", "duplicate", "future", "discarded"
WITHOUT_EFFECT = "without-effect"  # of the mark of a retry that came to nothing
OUTCOMES: Mapping[type[Verdict], str] = {type(COUNTS): FOLDED, Duplicate: DUPLICATE, FromTheFuture: FUTURE}

Read = Callable[[Parked], Decoded | Parked]
Judge = Callable[[Decoded, Ruling, Mapping[int, Parked]], Verdict]


class Deciding:
    """Decisions are taken one after the other; `rows` is what is or was parked, as the decisions so far leave it.

    `read` reads a record with the code of today, and answers it as poison if that still fails. `judge` says whether a view counts.
    Where a topic is `ordered`, a record is folded only once every earlier one of its key is decided, and those that waited follow it.
    """

    def __init__(self, rows: Iterable[Parked], *, ordered: bool, read: Read, judge: Judge) -> None:
        self.rows = {row.place.offset: row for row in rows}
        self.counted: list[Decoded] = []
        self.refused: list[Refused] = []
        self._before = dict(self.rows)
        self._ordered = ordered
        self._read = read
        self._judge = judge

    @property
    def changed(self) -> list[Parked]:
        """The rows that are no longer as they were."""
        return [row for offset, row in self.rows.items() if row != self._before[offset]]

    def decide(self, ruling: Ruling) -> None:
        """What was never parked, or is decided already, is not touched; what waits behind another comes by itself."""
        row = self.rows.get(ruling.place.offset)
        if row is None or row.outcome is not None:
            return
        if not ruling.is_retry:
            self._put(decided(row, DISCARDED, ruling))
            self._release(row, ruling)
        elif row.reason != WAITS_BEHIND:
            found = self._read(row)
            if isinstance(found, Parked):
                self._put(row._replace(reason=found.reason, detail=found.detail))
            else:
                self._release(row, ruling)

    def _release(self, first_decided: Parked, ruling: Ruling) -> None:
        """Fold what can be folded now, in the order of the log, up to the next record that cannot."""
        key = first_decided.record.key
        chain = [
            row
            for row in sorted(self.rows.values(), key=lambda row: row.place.offset)
            if row.outcome is None
            and (row.place == first_decided.place or (self._ordered and key is not None and row.record.key == key))
        ]
        first: Parked | None = None
        for row in chain:
            if row.reason != WAITS_BEHIND and row.place != first_decided.place:
                first = first or row
            elif first is not None:
                self._put(waiting(row, first.place))
            else:
                found = self._read(row)
                if isinstance(found, Parked):
                    first = row._replace(reason=found.reason, detail=found.detail, waits_for=None)
                    self._put(first)
                else:
                    self._fold(row, found, ruling)

    def _fold(self, row: Parked, decoded: Decoded, ruling: Ruling) -> None:
        verdict = self._judge(decoded, ruling, self.rows)
        if verdict is COUNTS:
            self.counted.append(decoded)
        else:
            self.refused.append(Refused(cast(VideoViewed, decoded.event), decoded.recorded, verdict))
        self._put(decided(row, OUTCOMES[type(verdict)], ruling))

    def _put(self, row: Parked) -> None:
        self.rows[row.place.offset] = row


def decided(row: Parked, outcome: str, ruling: Ruling) -> Parked:
    """What became of the record by the ruling."""
    decided_at = moment_of(ruling.recorded_at_ms)
    return row._replace(outcome=outcome, decided_by=ruling.at, decided_at=decided_at, mark=ruling.mark, waits_for=None)


def took_its_id(row: Parked) -> bool:
    """Whether a view that was parked has by now taken its id: it was folded, or is a duplicate."""
    return row.outcome in (FOLDED, DUPLICATE)


def waiting(row: Parked, behind: Place) -> Parked:
    """The record, waiting for another of its key."""
    detail = f"an earlier record of this key is parked at {behind}; decide about {behind.id} first, then this one follows by itself"
    return row._replace(reason=WAITS_BEHIND, detail=detail, waits_for=behind.offset)


def judge_by(sightings: Mapping[str, Sequence[Sighting]], within: timedelta) -> Judge:
    """A retried view counts unless a record with its id took it within `within`, before or behind, and before the view is judged.

    One that was folded at its place took it, and one that was retried by an earlier decision; where neither that nor this decision has a
    mark, only if it counted. So the verdict rests on the log alone, and is the same whenever, and by whomever, the log is folded.
    """
    within_ms = within // MILLISECOND

    def judge(decoded: Decoded, ruling: Ruling, rows: Mapping[int, Parked]) -> Verdict:
        view, recorded = decoded
        if view.type != VideoViewed.type:
            return COUNTS
        if ahead_seconds := ahead(view, recorded):
            return FromTheFuture(ahead_seconds)
        for offset, recorded_at_ms in sightings.get(view.key, ()):
            if (
                offset != recorded.place.offset
                and offset < ruling.judged_to
                and abs(recorded_at_ms - recorded.recorded_at_ms) <= within_ms
                and _is_known(rows.get(offset), ruling)
            ):
                return Duplicate(offset)
        return COUNTS

    return judge


def _is_known(row: Parked | None, to: Ruling) -> bool:
    if row is None:
        return True
    is_earlier = row.decided_by is not None and row.decided_by < to.at
    return is_earlier and (row.outcome == FOLDED or (took_its_id(row) and (to.is_marked or row.mark is not None)))


def all_count(decoded: Decoded, ruling: Ruling, rows: Mapping[int, Parked]) -> Verdict:
    """For a projection that folds whatever it is given."""
    return COUNTS
