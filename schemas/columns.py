"""Records of one partition, and events, as columns: for who reads them by the thousand."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from .decoded import Decoded
from .events import Event
from .log import Place, Recorded
from .records import Record

E_co = TypeVar("E_co", covariant=True, bound=Event)


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


class Events(Sequence[Decoded], Generic[E_co]):
    """Events in the order of the log, as columns: `each` event, its partition, its offset, and its append time in milliseconds since 1970.

    Whoever adds up thousands takes the columns; as a sequence it hands out each event with how the log holds it, made when asked for.
    """

    def __init__(
        self,
        each: Sequence[E_co],
        partitions: NDArray[np.int64],
        offsets: NDArray[np.int64],
        times_ms: NDArray[np.int64],
        recorded_of: Callable[[Sequence[int]], Sequence[Recorded]],
    ) -> None:
        self.each = each
        self.partitions = partitions
        self.offsets = offsets
        self.times_ms = times_ms
        self.recorded_of = recorded_of
        """How the log holds those with these numbers, counted from 0."""

    @classmethod
    def of(cls, decoded: Sequence[Decoded]) -> "Events[Any]":
        """The same as columns."""
        if isinstance(decoded, Events):
            return decoded
        recorded = [item.recorded for item in decoded]
        partitions = np.array([one.place.partition for one in recorded], dtype=np.int64)
        offsets = np.array([one.place.offset for one in recorded], dtype=np.int64)
        times_ms = np.array([one.recorded_at_ms for one in recorded], dtype=np.int64)
        each: list[Any] = [item.event for item in decoded]
        return Events(each, partitions, offsets, times_ms, lambda numbers: [recorded[number] for number in numbers])

    @classmethod
    def at(
        cls,
        topic: str,
        partition: int,
        each: Sequence[E_co],
        offsets: NDArray[np.int64],
        times_ms: NDArray[np.int64],
        ids_of: Callable[[Sequence[int]], Sequence[str]],
    ) -> "Events[E_co]":
        """The events of one partition."""

        def recorded_of(numbers: Sequence[int]) -> list[Recorded]:
            # Named tuples without the detour over their own constructors.
            new, at = tuple.__new__, np.asarray(numbers, dtype=np.int64)
            places = [new(Place, (topic, partition, offset)) for offset in offsets[at].tolist()]
            rows = zip(places, times_ms[at].tolist(), ids_of(numbers), strict=True)
            return [new(Recorded, row) for row in rows]

        return Events(each, np.full(len(offsets), partition), offsets, times_ms, recorded_of)

    @cached_property
    def recorded(self) -> Sequence[Recorded]:
        """How the log holds each."""
        return self.recorded_of(range(len(self)))

    def column(self, field: str) -> list[Any]:
        """A field of each."""
        return list(map(attrgetter(field), self.each))

    @cached_property
    def types(self) -> Sequence[str]:
        """The types of event among them, in the order in which they first come."""
        kinds: Iterable[type[Event]] = dict.fromkeys(map(type, self.each))
        return list(dict.fromkeys(kind.type for kind in kinds))

    def take(self, numbers: Sequence[int]) -> "Events[E_co]":
        """Those with these numbers."""
        at = np.asarray(numbers, dtype=np.int64)
        each = [self.each[number] for number in numbers]
        whole = self.recorded_of
        return Events(
            each,
            self.partitions[at],
            self.offsets[at],
            self.times_ms[at],
            lambda some: whole(at[np.asarray(some, dtype=np.int64)].tolist()),
        )

    def besides(self, offsets: Collection[int]) -> "Events[E_co]":
        """Those that lie at none of `offsets`."""
        if not offsets:
            return self
        return self.take([number for number, offset in enumerate(self.offsets.tolist()) if offset not in offsets])

    def of_type(self, event_type: str) -> "Events[Any]":
        """Those of one type."""
        if self.types == [event_type]:
            return self
        return self.take([number for number, event in enumerate(self.each) if event.type == event_type])

    def __len__(self) -> int:
        return len(self.each)

    def __iter__(self) -> Iterator[Decoded]:
        return map(Decoded, self.each, self.recorded)

    @overload
    def __getitem__(self, index: int) -> Decoded: ...
    @overload
    def __getitem__(self, index: slice) -> "Events[E_co]": ...
    def __getitem__(self, index: int | slice) -> "Decoded | Events[E_co]":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return Decoded(self.each[index], self.recorded_of([index])[0])
