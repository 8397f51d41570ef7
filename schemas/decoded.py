"""A decoded event, and how the log holds it."""

from typing import NamedTuple

from .events import Event
from .log import Recorded


class Decoded(NamedTuple):
    """An event, or the struct that stands in for it (`schemas.structs`), and how the log holds it."""

    event: Event
    recorded: Recorded
