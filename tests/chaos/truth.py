"""What the log means, read with kcat and told by rules that are written here once more, as plainly as they can be.

Nothing of ours is imported: whatever the system's own reading of the log gets wrong, this does not.
"""

import json
import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime

SIX_HOURS_MS = 6 * 60 * 60 * 1_000
READ_SECONDS = 60

Place = tuple[str, int, int]


@dataclass
class Truth:
    """`places`: of each write, by its kind and number, wherever it lies in the log. The rest is what the projections should hold."""

    places: dict[tuple[str, int], list[Place]] = field(default_factory=lambda: defaultdict(list))
    counted: dict[tuple[int, int], str] = field(default_factory=dict)  # partition, offset: view_id
    duplicates: dict[tuple[int, int], int] = field(default_factory=dict)  # partition, offset: the offset of the first
    views: Counter[str] = field(default_factory=Counter)  # by film
    hours: Counter[tuple[str, str]] = field(default_factory=Counter)  # by film and hour, such as 2026-05-01T20
    positions: dict[tuple[str, str], float] = field(default_factory=dict)  # viewer, film: the newest position
    films: dict[str, str] = field(default_factory=dict)  # id: title
    strange: list[str] = field(default_factory=list)


def read_log(bootstrap: str, topic: str) -> list[dict[str, object]]:
    """Every committed record, in the order of each partition. Raises CalledProcessError or TimeoutExpired."""
    command = ["kcat", "-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J"]
    done = subprocess.run(
        [*command, "-X", "isolation.level=read_committed"], check=True, capture_output=True, timeout=READ_SECONDS
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted(records, key=lambda record: (record["partition"], record["offset"]))


def truth_of(views: list[dict], positions: list[dict], videos: list[dict]) -> Truth:  # type: ignore[type-arg]
    truth = Truth()
    first: dict[tuple[int, str], tuple[int, int]] = {}
    for record in views:
        partition, offset, recorded_ms = record["partition"], record["offset"], record["ts"]
        view = json.loads(record["payload"])
        truth.places["view", _number(view["view_id"])].append(("views", partition, offset))
        occurred = datetime.fromisoformat(view["occurred_at"])
        if occurred.timestamp() * 1_000 > recorded_ms + 60_000:
            truth.strange.append(f"views/{partition} at {offset} is from the future")
            continue
        earlier = first.get((partition, view["view_id"]))
        first[partition, view["view_id"]] = offset, recorded_ms
        if earlier is not None and recorded_ms - earlier[1] <= SIX_HOURS_MS:
            truth.duplicates[partition, offset] = earlier[0]
            continue
        truth.counted[partition, offset] = view["view_id"]
        truth.views[view["video_id"]] += 1
        truth.hours[view["video_id"], occurred.isoformat()[:13]] += 1
    newest: dict[tuple[str, str], datetime] = {}
    for record in positions:
        position = json.loads(record["payload"])
        number = int(position["position_seconds"])
        truth.places["position", number].append(("positions", record["partition"], record["offset"]))
        at = position["viewer_id"], position["video_id"]
        occurred = datetime.fromisoformat(position["occurred_at"])
        if at not in newest or newest[at] <= occurred:
            newest[at], truth.positions[at] = occurred, position["position_seconds"]
    for record in videos:
        film = json.loads(record["payload"])
        if "title" in film:
            truth.films[film["video_id"]] = film["title"]
        if film["video_id"].startswith("announced-"):
            truth.places["film", _number(film["video_id"])].append(("videos", record["partition"], record["offset"]))
    return truth


def _number(identity: str) -> int:
    """`view-204711`: a write's number ends its id."""
    return int(identity.rpartition("-")[2])
