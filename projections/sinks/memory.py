"""The sink in memory: the contract in its plainest form, for tests and for what-if questions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from projections.changes import Append, Change, Forget, Increment, Remove, Tally, Upsert, Upserts, Values, singly
from projections.projection import Projection
from projections.sinks.sink import Checkpoint, CheckpointMoved, LogIdentity, Step
from schemas.log import Place

Key = tuple[tuple[str, Any], ...]


class MemorySink:
    """A projection's rows in dicts. No await lies between its first write and the checkpoint's, so a step is whole or was not."""

    needs_offsets = False

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._tables: dict[str, dict[Key, dict[str, Any]]] = {}
        self._forgotten: dict[str, list[Forget]] = {}
        self._checkpoints: dict[tuple[str, int], Checkpoint] = {}
        self._steps: dict[tuple[str, int], str | None] = {}

    async def prepare(self) -> None:
        """There is nothing to make."""

    async def checkpoint(self, topic: str, partition: int, log: LogIdentity) -> Checkpoint:
        return self._checkpoints.setdefault((topic, partition), Checkpoint(Place(topic, partition, 0), log))

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        at = expected.topic, expected.partition
        current = self._checkpoints.get(at)
        if current is None or current.place != expected:
            raise CheckpointMoved(self._projection.name, expected)
        for change in changes:
            self.write(change)
        self._checkpoints[at] = current._replace(place=expected._replace(offset=next_offset))
        self._steps[at] = step

    def condensed(self, changes: Sequence[Change]) -> Sequence[Change]:
        return changes

    async def newest_step(self, topic: str, partition: int) -> Step:
        checkpoint = self._checkpoints.get((topic, partition))
        return Step(checkpoint.next_offset if checkpoint else 0, self._steps.get((topic, partition)))

    async def tick(self, now: datetime) -> None:
        """Nothing rolls by itself here."""

    async def drop(self) -> None:
        self._tables.clear()
        self._forgotten.clear()
        self._checkpoints.clear()
        self._steps.clear()

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        """Every row of `table`, key columns included, in the order of their keys."""
        found = self._tables.get(table, {})
        return [dict(key) | found[key] for key in sorted(found, key=str)]

    def write(self, change: Change) -> None:
        """Let one change take effect."""
        if isinstance(change, Append | Tally | Upserts):
            for one in singly([change]):
                self.write(one)
            return
        rows = self._tables.setdefault(change.table, {})
        if isinstance(change, Remove):
            for key in [key for key in rows if change.key.items() <= dict(key).items()]:
                del rows[key]
            return
        if isinstance(change, Forget):
            self._forgotten.setdefault(change.table, []).append(change)
            for key in list(rows):
                _forget(rows, key, change)
            return
        key = _key(change.key)
        row = rows.setdefault(key, {})
        if isinstance(change, Increment):
            row[change.column] = row.get(change.column, 0) + change.by
        else:
            _upsert(change, row)
        for forgotten in self._forgotten.get(change.table, ()):
            _forget(rows, key, forgotten)


def _key(key: Values) -> Key:
    return tuple(sorted(key.items()))


def _forget(rows: dict[Key, dict[str, Any]], key: Key, forgotten: Forget) -> None:
    """Drop or blank the row at `key`, if it holds what is forgotten."""
    row = rows.get(key)
    if row is None or not forgotten.key.items() <= (dict(key) | row).items():
        return
    if forgotten.blank:
        row.update(dict.fromkeys(forgotten.blank))
    else:
        del rows[key]


def _upsert(change: Upsert, row: dict[str, Any]) -> None:
    """The row's register and its greatest are each on their own."""
    register, greatest = change.newest_by, change.greatest
    kept = row.get(greatest) if greatest else None
    if register is None or row.get(register) is None or row[register] <= change.values[register]:
        row.update(change.values)
    if greatest:
        row[greatest] = change.values[greatest] if kept is None else max(kept, change.values[greatest])
