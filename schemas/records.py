"""A record of the log."""

from collections.abc import Iterable
from typing import Protocol

Headers = Iterable[tuple[str, bytes]]


class Record(Protocol):
    """What a Kafka client hands out; `topic` may carry a prefix, so its logical name is given apart."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...
