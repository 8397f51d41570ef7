"""`python -m schemas` writes `schemas/published/` and the digests of new golden bytes; with `--check` it only compares.

Neither passes over a promise that would be broken: then nothing is written, and each break is told with its way out.
"""

import sys

from . import golden, publishing
from .events import EVENTS
from .golden import FROZEN, GOLDEN, Golden
from .publishing import PUBLISHED
from .streams import streams
from .upcasters import UPCASTERS


def main(arguments: list[str]) -> int:
    records, digests = golden.goldens(), golden.frozen()
    committed = publishing.committed_schemas()
    proposed = {event.type: publishing.json_schema(event) for event in EVENTS.values()}
    broken = golden.broken_promises(records, digests) + publishing.broken_promises(
        committed,
        proposed,
        publishing.committed_partitions(),
        streams().topics,
        {record.type for record in records if record.name in digests},
    )
    for sentence in broken:
        print(sentence, file=sys.stderr)
    if broken:
        return 1
    expected = publishing.published_files(streams(), records, committed)
    stale, lines = publishing.stale_files(expected), golden.new_lines(records, digests)
    if "--check" in arguments:
        return _check(records, stale, lines)
    for sentence in publishing.widenings(committed, proposed):
        print(f"wider: {sentence}; roll out those who read it before those who write it")
    PUBLISHED.mkdir(exist_ok=True)
    for name in stale:
        if name in expected:
            (PUBLISHED / name).write_bytes(expected[name])
        else:
            (PUBLISHED / name).unlink()
        print(f"wrote {name}" if name in expected else f"removed {name}")
    if lines:
        with (GOLDEN / FROZEN).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        print(f"froze {len(lines)} golden records")
    return 0


def _check(records: list[Golden], stale: list[str], lines: list[str]) -> int:
    told = [
        f"{name} has no golden record in {mode} mode: write its bytes to tests/golden/{name}{ending}.json"
        for mode, ending in (("binary", ""), ("structured", ".structured"))
        for name in (*EVENTS, *UPCASTERS)
        if not any(record.type == name and record.structured == (mode == "structured") for record in records)
    ]
    if stale:
        told.append(f"schemas/published is not what the models say: {', '.join(stale)}; run python -m schemas")
    if lines:
        told.append(f"{len(lines)} golden records are not frozen yet; run python -m schemas")
    for sentence in told:
        print(sentence, file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
