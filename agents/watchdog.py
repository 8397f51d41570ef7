"""A reader that is behind and does not move, although its store answers, is stuck: it is named, and started again."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from agents.handover import Partition
from agents.standing import Judged, Standing

STUCK_SECONDS = (
    60.0  # beyond every bound of a store's own: a statement, a lock, the death of a frozen worker's connection
)
RESTARTS = 3  # in a row without a move; then the worker dies, and begins anew with everything

Key = tuple[str, Partition]


class Stuck(Exception):
    """A reader stands still although it was started again: the process itself is at fault."""


class _Mark(NamedTuple):
    next_offset: int | None
    moved_at: datetime


class Watchdog:
    """Remembers when each partition moved last. Behind and still for `stuck_seconds` is a verdict; why it stands, the reader knows."""

    def __init__(self, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._patience = timedelta(seconds=stuck_seconds)
        self._marks: dict[Key, _Mark] = {}
        self._restarts: dict[str, int] = {}

    def judge(
        self, standing: Standing, end_offset: int, appended_at: datetime | None, now: datetime | None = None
    ) -> Judged:
        """The verdict on one partition at `now`; `appended_at` is of its oldest record that is not folded."""
        now = now or datetime.now(UTC)
        key, next_offset = (standing.full_name, standing.partition), standing.progress.next_offset
        is_behind = next_offset is None or next_offset < end_offset
        mark = self._marks.get(key)
        if mark is None or next_offset != mark.next_offset or not is_behind:
            if mark is not None and next_offset is not None and next_offset != mark.next_offset:
                self._restarts.pop(standing.full_name, None)
            mark = self._marks[key] = _Mark(next_offset, now)
        seconds = None
        if not is_behind:
            seconds = 0.0
        elif appended_at is not None:
            seconds = max(0.0, (now - appended_at).total_seconds())
        judged = Judged(standing, end_offset, seconds, mark.moved_at, standing.refusal)
        if standing.refusal is None and is_behind and now - mark.moved_at >= self._patience:
            return judged._replace(why=_sentence(judged, now))
        return judged

    def keep(self, held: Iterable[Standing]) -> None:
        """Forget every other partition: another worker's now."""
        keys = {(standing.full_name, standing.partition) for standing in held}
        self._marks = {key: mark for key, mark in self._marks.items() if key in keys}

    def restarted(self, full_name: str) -> None:
        """That version's reader begins anew, and has its time again. Raises Stuck when that did not help before."""
        done = self._restarts.get(full_name, 0)
        if done >= RESTARTS:
            raise Stuck(f"{full_name} stands still after its reader was started again {done} times")
        self._restarts[full_name] = done + 1
        self._marks = {key: mark for key, mark in self._marks.items() if key[0] != full_name}


def _sentence(judged: Judged, now: datetime) -> str:
    standing, moved_at = judged.standing, judged.moved_at
    next_offset, _, waits_for = standing.progress
    at = standing.partition if next_offset is None else f"{standing.partition} at {next_offset:,}"
    behind = "its checkpoint is not known" if next_offset is None else f"{judged.lag_events:,} events behind"
    return (
        f"{standing.full_name} has not moved from {at} since {moved_at:%F %T} UTC "
        f"({(now - moved_at).total_seconds():.0f} s), {behind}: it waits for {standing.reason or waits_for}"
    )


def silent(judged: Iterable[Judged]) -> list[Judged]:
    """Those that stand still for no reason that their reader knows of, or for one that cannot be: whoever asks has had Kafka's answer."""
    return [
        one
        for one in judged
        if one.why and not one.standing.refusal and (not one.standing.reason or one.standing.blames_kafka)
    ]
