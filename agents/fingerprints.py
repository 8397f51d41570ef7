"""What each fold makes of a golden log, as a digest beside its number: a fold that changes has to take the next number.

`python -m agents.fingerprints` writes `tests/golden/folds/folds.json`, `--check` only compares. The golden log beside it, `log.jsonl`, only
grows: golden records of event types that it lacks are added to its end, and each digest says of how many records it is.
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Self

import orjson

from agents.folding import judge
from agents.handover import Partition
from agents.reading import read_records
from projections.all import PROJECTIONS
from projections.counting import SeenIds
from projections.projection import Projection
from projections.sinks.memory import MemorySink
from schemas.decoded import Decoded
from schemas.golden import GOLDEN, goldens
from schemas.partitions import partition_of
from schemas.streams import Streams, streams

LOG, FOLDS = GOLDEN / "folds" / "log.jsonl", GOLDEN / "folds" / "folds.json"
BATCH_RECORDS = 37
HOUR_MS = 3_600_000


class GoldenRecord(NamedTuple):
    """A record as it lies in the golden log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes

    @classmethod
    def read(cls, line: bytes) -> Self:
        topic, partition, offset, timestamp, key, headers, value = orjson.loads(line)
        headers = [(name, text.encode()) for name, text in headers]
        return cls(topic, partition, offset, timestamp, key.encode(), headers, value.encode())

    def written(self) -> bytes:
        headers = [(name, value.decode()) for name, value in self.headers]
        return orjson.dumps([*self[:4], self.key.decode(), headers, self.value.decode()])


class Fingerprint(NamedTuple):
    """What a fold of this number makes of the first `records` of the golden log."""

    fold: int
    records: int
    digest: str


def golden_log() -> list[GoldenRecord]:
    return [GoldenRecord.read(line) for line in LOG.read_bytes().splitlines()]


def grown(log: Sequence[GoldenRecord], streams: Streams) -> list[GoldenRecord]:
    """The log with a golden record of each type that a fold reads and the log lacks."""
    there = {item.event.type for items in _decoded(log, streams).values() for item in items}
    lacking = {event.type for projection in PROJECTIONS.values() for event in projection.event_types} - there
    longer = list(log)
    for golden in goldens():
        if golden.type in lacking and not golden.structured:
            partition = partition_of(golden.key.encode(), streams.topics[golden.topic].partitions)
            same = [r.offset for r in longer if (r.topic, r.partition) == (golden.topic, partition)]
            headers = [(name, value.encode()) for name, value in golden.headers.items()]
            place = golden.topic, partition, max(same, default=-1) + 1, longer[-1].timestamp + HOUR_MS
            longer.append(GoldenRecord(*place, golden.key.encode(), headers, golden.value.encode()))
    return longer


def fingerprint(projection: Projection, log: Sequence[GoldenRecord], streams: Streams) -> Fingerprint:
    """Folded batch by batch, one partition after the other."""
    sink, tables = MemorySink(projection), set()
    for partition, decoded in _decoded(log, streams).items():
        if partition.topic not in projection.topics:
            continue
        seen = SeenIds(streams.topics[partition.topic].once_within or timedelta(0), start_offset=0)
        for first in range(0, len(decoded), BATCH_RECORDS):
            batch = decoded[first : first + BATCH_RECORDS]
            for change in projection.fold(*(judge(seen, batch) if projection.counts_once else (batch,))):
                tables.add(change.table)
                sink.write(change)
    digest = hashlib.sha256()
    for table in sorted(tables):
        digest.update(b"\n".join([table.encode(), *sorted(map(_written, sink.rows(table))), b""]))
    return Fingerprint(projection.version, len(log), digest.hexdigest())


def _decoded(log: Iterable[GoldenRecord], streams: Streams) -> dict[Partition, Sequence[Decoded]]:
    by_partition: dict[Partition, list[GoldenRecord]] = {}
    for record in log:
        by_partition.setdefault(Partition(record.topic, record.partition), []).append(record)
    return {
        partition: read_records(records, partition, streams.topics[partition.topic].partitions).decoded
        for partition, records in sorted(by_partition.items())
    }


def _written(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)


def committed() -> dict[str, Fingerprint]:
    """The fingerprints as they were written down, by projection."""
    return {name: Fingerprint(**fields) for name, fields in orjson.loads(FOLDS.read_bytes()).items()}


def broken_promises(
    folds: Iterable[Projection], written_down: Mapping[str, Fingerprint], log: Sequence[GoldenRecord], streams: Streams
) -> list[str]:
    """A sentence for each fold that makes something else of the log than it did under the same number."""
    return [
        f"{fold.name} makes something else of the golden log than fold {fold.version} did: what is folded already would go on "
        f"as a mixture of both. Give it the number {fold.version + 1} in projections/{fold.name}.py and in streams.yaml, "
        f"then run python -m agents.fingerprints; `faust -A agents rebuild {fold.name}` builds its successor"
        for fold in folds
        if (old := written_down.get(fold.name)) is not None
        and old.fold == fold.version
        and fingerprint(fold, log[: old.records], streams) != old
    ]


def main(arguments: list[str]) -> int:
    log, map_of_system = golden_log(), streams()
    told = broken_promises(PROJECTIONS.values(), committed(), log, map_of_system)
    if told:
        print("\n".join(told), file=sys.stderr)
        return 1
    longer = grown(log, map_of_system)
    folds = {name: fingerprint(fold, longer, map_of_system)._asdict() for name, fold in PROJECTIONS.items()}
    expected = {
        LOG: b"".join(record.written() + b"\n" for record in longer),
        FOLDS: orjson.dumps(folds, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
    }
    stale = [path for path, content in expected.items() if path.read_bytes() != content]
    for path in stale:
        if "--check" in arguments:
            print(
                f"tests/golden/folds/{path.name} is not up to date: run python -m agents.fingerprints", file=sys.stderr
            )
        else:
            path.write_bytes(expected[path])
            print(f"wrote tests/golden/folds/{path.name}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
