"""Older dict to newer dict, chained by type, so that folds know only the newest version of each event."""

from collections.abc import Callable
from typing import Any, NamedTuple

Data = dict[str, Any]


class Upcaster(NamedTuple):
    """Turns the data of one type into the data of the next version, `becomes`."""

    becomes: str
    upcast: Callable[[Data], Data]


UPCASTERS: dict[str, Upcaster] = {}
"""By the old type. Every first version is still the newest, so there is none yet."""


def upcast(event_type: str, data: Data, upcasters: dict[str, Upcaster] = UPCASTERS) -> tuple[str, Data]:
    """The newest type and data that `data` of `event_type` stands for; what has no upcaster comes back as it is."""
    while step := upcasters.get(event_type):
        event_type, data = step.becomes, step.upcast(data)
    return event_type, data
