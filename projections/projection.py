"""A projection is a value: a name, a version, the topics it folds, and what each event means to it."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self, cast, get_args, get_origin, get_type_hints

from projections.changes import Change
from projections.counting import COUNTS, Verdict
from projections.rule import Rule
from schemas.envelope import Decoded
from schemas.events import Event, VideoViewed
from schemas.log import Recorded
from schemas.streams import DECISIONS

Handler = Callable[..., Iterator[Change]]


class Refused(NamedTuple):
    """A view that does not count, and why."""

    view: VideoViewed
    recorded: Recorded
    verdict: Verdict


class Registered(NamedTuple):
    """A handler, and how it wants to be called."""

    handler: Handler
    wants_recorded: bool
    wants_all: bool


class Projection:
    """What events mean to one noun. `counts_once`: of views that share an id only the first reaches the fold (`counting`).

    A handler is a generator of changes. Its first parameter is annotated with the event it is for; a second one, if it has it, receives
    `Recorded`: the event's place, append time and id. One whose first parameter is a `Sequence[tuple[SomeEvent, Recorded]]` is handed all
    of a batch at once, so that it can add up; what it yields must not depend on how the log is cut into batches.
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
    ) -> tuple[Sequence[Decoded], Sequence[Refused]]:
        """What reaches the handlers: what the version's rule leaves out does not count."""
        if self.rule is None:
            return decoded, refused
        left_out = [
            Refused(cast(VideoViewed, event), recorded, verdict)
            for event, recorded in decoded
            if event.type == VideoViewed.type and (verdict := self.rule.verdict(cast(VideoViewed, event))) is not COUNTS
        ]
        places = {item.recorded.place for item in left_out}
        return [item for item in decoded if item.recorded.place not in places], [*refused, *left_out]

    @property
    def reads(self) -> tuple[str, ...]:
        """Its topics, and the operators' decisions about what it parked of them."""
        return (*self.topics, DECISIONS)

    def on(self, handler: Handler) -> Handler:
        """Register `handler` for the event that its first parameter is annotated with."""
        parameters = list(inspect.signature(handler).parameters)
        annotation = get_type_hints(handler)[parameters[0]]
        wants_all = get_origin(annotation) is Sequence
        event_type = get_args(get_args(annotation)[0])[0] if wants_all else annotation
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
        decoded, refused = self.ruled(decoded, refused)
        types = dict.fromkeys([event.type for event, _ in decoded])
        for event_type in types:
            registered = self._handlers.get(event_type)
            if registered is not None and registered.wants_all:
                alone = len(types) == 1
                yield from registered.handler(decoded if alone else [i for i in decoded if i.event.type == event_type])
        if not all(registered.wants_all for registered in self._handlers.values()):
            yield from self._fold_one_by_one(decoded)
        if refused and self._refused_handler is not None:
            yield from self._refused_handler(refused)

    def _fold_one_by_one(self, decoded: Sequence[Decoded]) -> Iterator[Change]:
        for event, recorded in decoded:
            registered = self._handlers.get(event.type)
            if registered is not None and not registered.wants_all:
                handler = registered.handler
                yield from handler(event, recorded) if registered.wants_recorded else handler(event)
