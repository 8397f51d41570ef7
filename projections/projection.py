"""A projection is a value: a name, a version, the topics it folds, and what each event means to it."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, get_type_hints

from projections.changes import Change
from schemas.envelope import Decoded
from schemas.events import Event
from schemas.streams import DECISIONS

Handler = Callable[..., Iterator[Change]]


class Projection:
    """What events mean to one noun. `counts_once`: of views that share an id only the first reaches the fold (`counting`).

    A handler is a generator of changes. Its first parameter is annotated with the event it is for; a second one, if it has it, receives
    `Recorded`: the event's place, append time and id.
    """

    def __init__(self, name: str, *, version: int, topics: tuple[str, ...], counts_once: bool = False) -> None:
        self.name = name
        self.version = version
        self.topics = topics
        self.counts_once = counts_once
        self._handlers: dict[type[Event], tuple[Handler, bool]] = {}

    def __repr__(self) -> str:
        return f"<Projection {self.full_name}>"

    @property
    def full_name(self) -> str:
        """The name with its version, as it is part of every table, index and key: `positions_v1`."""
        return f"{self.name}_v{self.version}"

    def at(self, version: int) -> Self:
        """The same fold, whose state is another version of it."""
        twin = copy.copy(self)
        twin.version = version
        return twin

    @property
    def reads(self) -> tuple[str, ...]:
        """Its topics, and the operators' decisions about what it parked of them."""
        return (*self.topics, DECISIONS)

    @property
    def event_types(self) -> tuple[type[Event], ...]:
        """The events that mean something to it; every other event on its topics is ignored."""
        return tuple(self._handlers)

    def on(self, handler: Handler) -> Handler:
        """Register `handler` for the event that its first parameter is annotated with."""
        parameters = list(inspect.signature(handler).parameters)
        event_type = get_type_hints(handler)[parameters[0]]
        if event_type in self._handlers:
            raise TypeError(f"{self.name} handles {event_type.__name__} twice")
        if event_type.topic not in self.topics:
            raise TypeError(
                f"{self.name} handles {event_type.__name__}, but does not read the topic {event_type.topic}"
            )
        self._handlers[event_type] = handler, len(parameters) > 1
        return handler

    def fold(self, decoded: Iterable[Decoded]) -> Iterator[Change]:
        """The changes that these events mean, in their order."""
        handlers: dict[type[Any], tuple[Handler, bool]] = self._handlers
        for event, recorded in decoded:
            entry = handlers.get(type(event))
            if entry is None:
                continue
            handler, wants_recorded = entry
            yield from handler(event, recorded) if wants_recorded else handler(event)
