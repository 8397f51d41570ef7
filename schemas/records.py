"""Records of one partition as columns, for who reads them by the thousand."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

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


class Columns(Sequence[Record]):
    """At least one record, all of one partition; a header that a record has twice counts as its last."""

    @property
    @abstractmethod
    def partition(self) -> int: ...
    @property
    @abstractmethod
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    @abstractmethod
    def times_ms(self) -> NDArray[np.int64]:
        """Milliseconds since 1970."""

    @property
    @abstractmethod
    def keys(self) -> list[bytes | None]: ...
    @property
    @abstractmethod
    def values(self) -> list[bytes | None]: ...
    @abstractmethod
    def common(self, header: str) -> bytes | None:
        """The header's value, if all records have the same."""

    @abstractmethod
    def each(self, header: str) -> Sequence[bytes | None]:
        """The header of each record, None where it has none."""

    @abstractmethod
    def plain(self, header: str, longest: int) -> Callable[[Sequence[int]], list[str]] | None:
        """What tells the header, as text, of the records with these numbers, counted from 0.

        None unless each record has one, in ASCII, of 1 to `longest` characters.
        """


class Listed(Columns):
    """The columns of records that a client has handed out one by one."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._records[index]

    @property
    def partition(self) -> int:
        return self._records[0].partition

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return np.array([record.offset for record in self._records], dtype=np.int64)

    @cached_property
    def times_ms(self) -> NDArray[np.int64]:
        return np.array([record.timestamp for record in self._records], dtype=np.int64)

    @cached_property
    def keys(self) -> list[bytes | None]:
        return [record.key for record in self._records]

    @cached_property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self._records]

    @cached_property
    def _headers(self) -> list[dict[str, bytes]]:
        return [dict(record.headers) for record in self._records]

    def common(self, header: str) -> bytes | None:
        found = {headers.get(header) for headers in self._headers}
        return found.pop() if len(found) == 1 else None

    def each(self, header: str) -> Sequence[bytes | None]:
        return [headers.get(header) for headers in self._headers]

    def plain(self, header: str, longest: int) -> Callable[[Sequence[int]], list[str]] | None:
        found = [headers.get(header) or b"" for headers in self._headers]
        if not all(found) or len(max(found, key=len)) > longest or not b"".join(found).isascii():
            return None
        return lambda numbers: [found[number].decode() for number in numbers]
