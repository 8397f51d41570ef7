"""A projection is a value: a name, a version, the topics it folds, and what each event means to it."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, get_args, get_origin, get_type_hints

from projections.changes import Change
from projections.counting import COUNTS, Verdict
from projections.rule import Rule
from schemas.columns import Events
from schemas.decoded import Decoded
from schemas.events import Event, VideoViewed
from schemas.log import Recorded
from schemas.streams import DECISIONS

Handler = Callable[..., Iterator[Change]]


class Refused(NamedTuple):
    """A view that does not count, and why."""

    view: VideoViewed
    recorded: Recorded
    verdict: Verdict


def refusing(
    events: Events[Any], verdicts: Mapping[int, Verdict], refused: Sequence[Refused] = ()
) -> tuple[Events[Any], Sequence[Refused]]:
    """The events without those that a verdict is on, by their numbers; and the refused with them."""
    if not verdicts:
        return events, refused
    numbers = sorted(verdicts)
    recorded = zip(numbers, events.recorded_of(numbers), strict=True)
    more = [Refused(events.each[number], how, verdicts[number]) for number, how in recorded]
    return events.take([n for n in range(len(events)) if n not in verdicts]), [*refused, *more]


class Registered(NamedTuple):
    """A handler, and how it wants to be called."""

    handler: Handler
    wants_recorded: bool
    wants_all: bool


class Projection:
    """What events mean to one noun. `counts_once`: of views that share an id only the first reaches the fold (`counting`).

    A handler is a generator of changes. Its first parameter is annotated with the event it is for; a second one, if it has it, receives
    `Recorded`: the event's place, append time and id. One whose first parameter is `Events[SomeEvent]` is handed all of a batch at once,
    so that it can add up; what it yields must not depend on how the log is cut into batches.
    """

    def __init__(self, name: str, *, version: int, topics: tuple[str, ...], counts_once: bool = False) -> None:
        self.name = name
        self.version = version
        self.rule: Rule | None = None
        self.topics = topics
        self.counts_once = counts_once
        self._handlers: dict[str, Registered] = {}
        self._refused_handler: Callable[[Sequence[Refused]], Iterator[Change]] | None = None
        self.event_types: tuple[type[Event], ...] = ()  # every other event on its topics is ignored

    def __repr__(self) -> str:
        return f"<Projection {self.full_name}>"

    @property
    def full_name(self) -> str:
        """The name with its version, as it is part of every table, index and key: `positions_v1`."""
        return f"{self.name}_v{self.version}"

    def at(self, version: int, rule: Rule | None = None) -> Self:
        """The same fold, whose state is another version of it; with a `rule`, fewer views count."""
        if rule is not None and not self.counts_once:
            raise TypeError(f"{self.name} counts no views, so that no rule can change it")
        twin = copy.copy(self)
        twin.version, twin.rule = version, rule
        return twin

    def ruled(
        self, decoded: Sequence[Decoded], refused: Sequence[Refused] = ()
    ) -> tuple[Events[Any], Sequence[Refused]]:
        """What reaches the handlers: what the version's rule leaves out does not count."""
        events = Events.of(decoded)
        if self.rule is None:
            return events, refused
        verdicts = {
            number: verdict
            for number, event in enumerate(events.each)
            if event.type == VideoViewed.type and (verdict := self.rule.verdict(event)) is not COUNTS
        }
        return refusing(events, verdicts, refused)

    @property
    def reads(self) -> tuple[str, ...]:
        """Its topics, and the operators' decisions about what it parked of them."""
        return (*self.topics, DECISIONS)

    def on(self, handler: Handler) -> Handler:
        """Register `handler` for the event that its first parameter is annotated with."""
        parameters = list(inspect.signature(handler).parameters)
        annotation = get_type_hints(handler)[parameters[0]]
        wants_all = get_origin(annotation) is Events
        event_type = get_args(annotation)[0] if wants_all else annotation
        if event_type.type in self._handlers:
            raise TypeError(f"{self.name} handles {event_type.__name__} twice")
        if event_type.topic not in self.topics:
            raise TypeError(
                f"{self.name} handles {event_type.__name__}, but does not read the topic {event_type.topic}"
            )
        self._handlers[event_type.type] = Registered(handler, len(parameters) > 1, wants_all)
        self.event_types += (event_type,)
        return handler

    def on_refused(
        self, handler: Callable[[Sequence[Refused]], Iterator[Change]]
    ) -> Callable[[Sequence[Refused]], Iterator[Change]]:
        """Register what the views mean that do not count."""
        self._refused_handler = handler
        return handler

    def fold(self, decoded: Sequence[Decoded], refused: Sequence[Refused] = ()) -> Iterator[Change]:
        """The changes that these events mean: those that are added up, then the others one by one in their order."""
        events, refused = self.ruled(decoded, refused)
        one_by_one = False
        for event_type in events.types:
            registered = self._handlers.get(event_type)
            if registered is not None and registered.wants_all:
                yield from registered.handler(events.of_type(event_type))
            one_by_one |= registered is not None and not registered.wants_all
        if one_by_one:
            yield from self._fold_one_by_one(events)
        if refused and self._refused_handler is not None:
            yield from self._refused_handler(refused)

    def _fold_one_by_one(self, decoded: Iterable[Decoded]) -> Iterator[Change]:
        for event, recorded in decoded:
            registered = self._handlers.get(event.type)
            if registered is not None and not registered.wants_all:
                handler = registered.handler
                yield from handler(event, recorded) if registered.wants_recorded else handler(event)
