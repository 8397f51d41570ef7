"""What must be true whatever happened, and every sentence that is not."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.history import WRITES, Entry
from tests.chaos.truth import Place, Truth

NAMED = 5  # of those that a sentence is about


@dataclass
class Found:
    """What the stores hold once all is at rest."""

    raw: list[tuple[int, int, str]] = field(default_factory=list)  # partition, offset, view_id
    refused: dict[tuple[int, int], int] = field(default_factory=dict)  # partition, offset: the offset of the first
    hours: dict[tuple[str, str], int] = field(default_factory=dict)  # film, hour
    days: dict[str, int] = field(default_factory=dict)  # film, all days together
    board: dict[str, int] = field(default_factory=dict)  # film, of all time
    positions: dict[tuple[str, str], float] = field(default_factory=dict)  # viewer, film
    resume: dict[tuple[str, str], float] = field(default_factory=dict)
    catalogue: dict[str, str] = field(default_factory=dict)  # film: title
    search: dict[str, str] = field(default_factory=dict)
    parked: list[str] = field(default_factory=list)
    caught_up_seconds: float | None = None  # after the traffic ended; None: not as long as we waited


def judge(entries: Sequence[Entry], truth: Truth, found: Found, *, within_seconds: float) -> list[str]:
    """Every promise that is broken, in words; none is none. The projections were to catch up `within_seconds`."""
    return [
        *_about_the_log(entries, truth),
        *_about_views(truth, found),
        *_about_maps("a position in Postgres", truth.positions, found.positions),
        *_about_maps("a position in Redis", truth.positions, found.resume),
        *_about_maps("a film of the catalogue", truth.films, found.catalogue),
        *_about_maps("a film of the search index", truth.films, found.search),
        *_about_reads(entries),
        *_about_the_end(entries, found, within_seconds),
    ]


def _about_the_log(entries: Iterable[Entry], truth: Truth) -> Iterable[str]:
    sent = {(entry.kind, entry.number) for entry in entries if entry.what == "sent"}
    acknowledged = {(e.kind, e.number, _place(e)) for e in entries if e.what == "acknowledged"}
    yield from _named(
        "acknowledged and not in the log",
        [
            f"{kind} {number}"
            for kind, number, place in acknowledged
            if place not in truth.places.get((kind, number), [])
        ],
    )
    yield from _named("in the log and never sent", [f"{k} {n}" for k, n in truth.places.keys() - sent])
    yield from _named("refused", [f"{e.kind} {e.number}: {e.more}" for e in entries if e.what == "refused"])
    yield from truth.strange


def _about_views(truth: Truth, found: Found) -> Iterable[str]:
    ids = Counter(view_id for _, _, view_id in found.raw)
    yield from _named("counted twice", [f"{view_id} ({n} times)" for view_id, n in ids.items() if n > 1])
    raw = {(partition, offset): view_id for partition, offset, view_id in found.raw}
    yield from _about_maps("a raw view", truth.counted, raw)
    yield from _about_maps("a refused view", truth.duplicates, found.refused)
    yield from _about_sums("an hour of a film", truth.hours, found.hours)
    yield from _about_sums("the days of a film", truth.views, found.days)
    yield from _about_sums("the board of all time", truth.views, found.board)


def _about_sums(what: str, expected: Mapping[object, int], held: Mapping[object, int]) -> Iterable[str]:
    keys = expected.keys() | held.keys()
    differ = {key: held.get(key, 0) - expected.get(key, 0) for key in keys}
    yield from _named(f"{what} has views too many", [f"{key}: {n}" for key, n in differ.items() if n > 0])
    yield from _named(f"{what} has lost views", [f"{key}: {-n}" for key, n in differ.items() if n < 0])


def _about_maps(what: str, expected: Mapping[object, object], held: Mapping[object, object]) -> Iterable[str]:
    yield from _named(f"{what} is lost", [str(key) for key in expected.keys() - held.keys()])
    yield from _named(
        f"{what} is there that the log does not tell of", [str(key) for key in held.keys() - expected.keys()]
    )
    wrong = [key for key in expected.keys() & held.keys() if expected[key] != held[key]]
    yield from _named(f"{what} is wrong", [f"{key}: {held[key]} instead of {expected[key]}" for key in wrong])


def _about_reads(entries: Sequence[Entry]) -> Iterable[str]:
    """No read shows more than was sent, and none shows less than one before it, unless the Redis that it comes from was killed."""
    sent: set[int] = set()
    highest: dict[str, int] = {}
    may_go_back = False
    for entry in entries:
        if entry.what == "sent" and entry.kind == "view":
            sent.add(entry.number)
        elif entry.what == "fault" and entry.kind == "kill redis":
            may_go_back = True
        elif entry.what == "read" and entry.kind == "top":
            source, total = entry.more["source"], entry.more["total"]
            if total > len(sent):
                yield f"at {entry.at} s the {source} showed {total} views when {len(sent)} had been sent"
            if total < highest.get(source, 0) and may_go_back and source == "leaderboard":
                may_go_back, highest[source] = False, total
            elif total < highest.get(source, 0):
                yield f"at {entry.at} s the {source} went back from {highest[source]} to {total} views"
            highest[source] = max(total, highest.get(source, 0))


def _about_the_end(entries: Sequence[Entry], found: Found, within_seconds: float) -> Iterable[str]:
    if found.caught_up_seconds is None:
        yield "the projections never caught up by themselves"
    elif found.caught_up_seconds > within_seconds:
        yield f"the projections caught up after {found.caught_up_seconds:.0f} s, and had {within_seconds:g}"
    yield from _named("parked, and nothing was poison", found.parked)
    over = max((entry.at for entry in entries if entry.what == "over"), default=0.0)
    for kind in WRITES:
        writers = {entry.who for entry in entries if entry.what == "sent" and entry.kind == kind}
        after = {
            entry.who for entry in entries if entry.what == "acknowledged" and entry.kind == kind and entry.at >= over
        }
        yield from _named(f"no {kind} of theirs was acknowledged once all faults were over", sorted(writers - after))
        if not writers:
            yield f"no {kind} was ever sent: nothing is proven"


def _named(what: str, about: Sequence[str]) -> Iterable[str]:
    if about:
        rest = f" and {len(about) - NAMED} more" if len(about) > NAMED else ""
        yield f"{what}: {', '.join(sorted(about)[:NAMED])}{rest}"


def _place(entry: Entry) -> Place:
    topic, partition, offset = entry.more["place"]
    return topic, partition, offset
