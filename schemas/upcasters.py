"""Older dict to newer dict, chained by type, so that folds know only the newest version of each event.

An upcaster sees the data alone, not the headers: a view means the same in binary and in structured mode, copied or not, and the key that
it lies under stays the id inside. It must answer the same for ever, so it reads no clock and nothing from outside.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from .errors import NotUpcast
from .events import EVENTS

Data = dict[str, Any]


class Upcaster(NamedTuple):
    """Turns the data of one type into the data of the next version, `becomes`."""

    becomes: str
    upcast: Callable[[Data], Data]


class WrongUpcasters(Exception):
    """The chain of upcasters leads nowhere, in a circle, or on from a type that is the newest."""


def chained(upcasters: dict[str, Upcaster], newest: Collection[str] = EVENTS) -> dict[str, Upcaster]:
    """`upcasters`, once each of them is known to lead to one of the `newest` types. Raises WrongUpcasters."""
    for start in upcasters:
        if start in newest:
            raise WrongUpcasters(f"{start} has a model, so no upcaster may lead on from it: take one of the two away")
        path = [start]
        while (step := upcasters.get(path[-1])) is not None:
            if step.becomes in path:
                raise WrongUpcasters(f"the upcasters go round in a circle: {' → '.join([*path, step.becomes])}")
            path.append(step.becomes)
        if path[-1] not in newest:
            raise WrongUpcasters(f"the upcasters of {start} end at {path[-1]}, which is no event in schemas/events.py")
    return upcasters


UPCASTERS: dict[str, Upcaster] = chained({})
"""By the old type. Every first version is still the newest, so there is none yet."""


def upcast(event_type: str, data: Data, upcasters: Mapping[str, Upcaster] = UPCASTERS) -> tuple[str, Data]:
    """The newest type and data that `data` of `event_type` stands for; what has no upcaster comes back as it is.

    Raises NotUpcast, where an upcaster fails on these data.
    """
    while step := upcasters.get(event_type):
        try:
            newer: object = step.upcast(data)
        except Exception as error:  # whatever it is, it is this record's trouble, and the records behind it go on
            raise NotUpcast(
                f"the upcaster from {event_type} to {step.becomes} failed on these data "
                f"({type(error).__name__}: {error}); mend it, then retry the record"
            ) from error
        if not isinstance(newer, dict):
            raise NotUpcast(
                f"the upcaster from {event_type} to {step.becomes} answered {type(newer).__name__}, not a dict; "
                "mend it, then retry the record"
            )
        event_type, data = step.becomes, newer
    return event_type, data
