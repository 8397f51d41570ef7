"""Kafka's record batches read column by column: what a client makes into an object a record costs more than folding it.

The layout is that of record batches since message format v2 (https://kafka.apache.org/documentation/#recordbatch). What is laid out
alike, as one producer's records are, is read with NumPy, all records at once.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from aiokafka import codec
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from numpy.typing import NDArray

from schemas.columns import Columns, Listed

BATCH_HEADER = struct.Struct(">qiibIhiqqqhii")
LENGTH_OFFSET, LENGTH_END = 8, 12  # of a batch's length, which counts what follows it
COMPRESSION, LOG_APPEND_TIME = 0x07, 0x08  # of a batch's attributes
DECOMPRESS = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}
LONGEST_VARINT = 10

Numbers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class LogRecord(NamedTuple):
    """One record, as `schemas.records.Record`."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Fields(NamedTuple):
    """Where something lies in each record: its first byte, and its length, -1 for null."""

    at: Numbers
    lengths: Numbers

    @property
    def ends(self) -> Numbers:
        return self.at + np.maximum(self.lengths, 0)


class Block(Columns):
    """Records of one partition. Its columns are made when they are asked for."""

    def __init__(
        self, partition: int, body: bytes, offsets: Numbers, times_ms: Numbers, keys: Fields, values: Fields
    ) -> None:
        self._partition = partition
        self._body = body
        self._offsets = offsets
        self._times_ms = times_ms
        self._keys = keys
        self._values = values

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> LogRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "Block": ...
    def __getitem__(self, index: int | slice) -> "LogRecord | Block":
        if isinstance(index, slice):
            keys, values = (Fields(at[index], lengths[index]) for at, lengths in (self._keys, self._values))
            return Block(self._partition, self._body, self._offsets[index], self._times_ms[index], keys, values)
        return LogRecord(
            self._partition,
            int(self._offsets[index]),
            int(self._times_ms[index]),
            self._cut(self._keys.at[index], self._keys.lengths[index]),
            self._cut(self._values.at[index], self._values.lengths[index]),
            self._headers_from(int(self._values.ends[index])),
        )

    def before(self, offset: int) -> "Block":
        """Its records before `offset`."""
        return self[: int(np.searchsorted(self._offsets, offset))]

    @property
    def partition(self) -> int:
        return self._partition

    @property
    def offsets(self) -> Numbers:
        return self._offsets

    @property
    def times_ms(self) -> Numbers:
        return self._times_ms

    @cached_property
    def keys(self) -> list[bytes | None]:
        return self._each(self._keys)

    @cached_property
    def values(self) -> list[bytes | None]:
        return self._each(self._values)

    def common(self, header: str) -> bytes | None:
        if self._headers is None:
            return self._listed.common(header)
        fields = self._headers.get(header)
        return None if fields is None else self._shared(fields)

    def each(self, header: str) -> Sequence[bytes | None]:
        if self._headers is None:
            return self._listed.each(header)
        fields = self._headers.get(header)
        return [None] * len(self) if fields is None else self._each(fields)

    def plain(self, header: str, longest: int) -> Callable[[Sequence[int]], list[str]] | None:
        if self._headers is None:
            return self._listed.plain(header, longest)
        fields = self._headers.get(header)
        if fields is None or fields.lengths.min() < 1 or fields.lengths.max() > longest:
            return None
        # As many bytes of each as the longest has: where that is too much, and seems to be no ASCII, it is looked at one by one.
        octets = self._gathered(fields.at, int(fields.lengths.max())).view(np.uint8)
        if octets.max() > 0x7F and not all(value is not None and value.isascii() for value in self._each(fields)):
            return None
        at, ends, body = fields.at, fields.ends, self._body
        return lambda numbers: [body[at[number] : ends[number]].decode() for number in numbers]

    @cached_property
    def _listed(self) -> Listed:
        return Listed([self[number] for number in range(len(self))])

    @cached_property
    def _bytes(self) -> Bytes:
        return np.frombuffer(self._body, dtype=np.uint8)

    @cached_property
    def _headers(self) -> dict[str, Fields] | None:
        """Each header, where all records have the same ones in the same order; else None."""
        number, at = varints(self._bytes, self._values.ends)
        if (number != number[0]).any():
            return None
        found: dict[str, Fields] = {}
        for _ in range(int(number[0])):
            lengths, at = varints(self._bytes, at)
            name = self._shared(Fields(at, lengths))
            if name is None:
                return None
            lengths, at = varints(self._bytes, at + lengths)
            found[name.decode()] = fields = Fields(at, lengths)
            at = fields.ends
        return found

    def _shared(self, fields: Fields) -> bytes | None:
        """What lies there in every record, if that is the same and not null."""
        length = int(fields.lengths[0])
        if length < 0 or (fields.lengths != length).any():
            return None
        if length == 0:
            return b""
        found = self._gathered(fields.at, length)
        return found[0].tobytes() if (found == found[0]).all() else None

    def _gathered(self, at: Numbers, length: int) -> NDArray[Any]:
        """So many bytes, at least one, from each place, each as one item."""
        starts = len(self._body) - length + 1
        windows: NDArray[Any] = np.ndarray((starts,), dtype=f"V{length}", buffer=self._body, strides=(1,))
        return windows[np.minimum(at, starts - 1)]

    def _each(self, fields: Fields) -> list[bytes | None]:
        body = self._body
        if fields.lengths.min() < 0:
            return [
                self._cut(at, length) for at, length in zip(fields.at.tolist(), fields.lengths.tolist(), strict=True)
            ]
        return [body[at:end] for at, end in zip(fields.at.tolist(), fields.ends.tolist(), strict=True)]

    def _cut(self, at: int, length: int) -> bytes | None:
        return None if length < 0 else self._body[at : at + length]

    def _headers_from(self, at: int) -> list[tuple[str, bytes]]:
        def number() -> int:
            nonlocal at
            value, at = varint(self._body, at)
            return value

        found: list[tuple[str, Any]] = []
        for _ in range(number()):
            length = number()
            name = self._body[at : at + length].decode()
            at += length
            length = number()
            found.append((name, self._cut(at, length)))
            at += max(length, 0)
        return found


class Section(NamedTuple):
    """The records of one batch, uncompressed, and what they have in common."""

    body: bytes | memoryview
    records: int
    base_offset: int
    first_ms: int
    appended_ms: int  # -1 where each record has its producer's time


def sections(message_set: bytes) -> Iterator[Section]:
    """The batches of a fetch, whole ones; the last may have been cut off. Raises CorruptRecordException, UnsupportedCodecError."""
    view, at = memoryview(message_set), 0
    while at + BATCH_HEADER.size <= len(message_set):
        base_offset, length, _, magic, _, attributes, _, first_ms, max_ms, _, _, _, records = BATCH_HEADER.unpack_from(
            message_set, at
        )
        end = at + LENGTH_END + length
        if end > len(message_set):
            return
        if magic != 2:
            raise CorruptRecordException(f"a batch of message format v{magic}")
        body: bytes | memoryview = view[at + BATCH_HEADER.size : end]
        if compression := attributes & COMPRESSION:
            if compression not in DECOMPRESS:
                raise UnsupportedCodecError(f"compression {compression}")
            body = DECOMPRESS[compression](bytes(body))
        yield Section(body, records, base_offset, first_ms, max_ms if attributes & LOG_APPEND_TIME else -1)
        at = end


def block_of(partition: int, found: Sequence[Section], from_offset: int) -> Block:
    """The records in `found` from an offset on."""
    body = b"".join(section.body for section in found) + bytes(LONGEST_VARINT)
    starts: list[int] = []
    end = 0
    for section in found:
        at = end
        end += len(section.body)
        for _ in range(section.records):
            low, high = body[at], body[at + 1]
            if (
                low > 0x7F >= high
            ):  # two bytes, as the length of most records takes; a call would take as long as all the rest
                length, at = ((low & 0x7F) | high << 7) >> 1, at + 2
            else:
                length, at = varint(body, at)
            starts.append(at)
            at += length
        if at != end:
            raise CorruptRecordException("a batch whose records are not as long as it is")
    octets = np.frombuffer(body, dtype=np.uint8)
    counts = [section.records for section in found]
    later_ms, place = varints(octets, np.array(starts, dtype=np.int64) + 1)  # behind a record's attributes
    deltas, place = varints(octets, place)
    key_lengths, place = varints(octets, place)
    keys = Fields(place, key_lengths)
    value_lengths, place = varints(octets, keys.ends)
    offsets = np.repeat(np.array([section.base_offset for section in found], dtype=np.int64), counts) + deltas
    appended_ms = np.repeat(np.array([section.appended_ms for section in found], dtype=np.int64), counts)
    first_ms = np.repeat(np.array([section.first_ms for section in found], dtype=np.int64), counts)
    times_ms = np.where(appended_ms >= 0, appended_ms, first_ms + later_ms)
    block = Block(partition, body, offsets, times_ms, keys, Fields(place, value_lengths))
    return block[int(np.searchsorted(offsets, from_offset)) :]


def varint(body: bytes, at: int) -> tuple[int, int]:
    """The number that is written at a place (zigzag, base 128), and where the next thing begins."""
    octet = body[at]
    at += 1
    value, shift = octet & 0x7F, 7
    while octet > 0x7F:
        octet = body[at]
        at += 1
        value |= (octet & 0x7F) << shift
        shift += 7
    return (value >> 1) ^ -(value & 1), at


def varints(octets: Bytes, at: Numbers) -> tuple[Numbers, Numbers]:
    """What `varint` answers, for many places at once."""
    octet = octets[at].astype(np.int64)
    value, at, shift = octet & 0x7F, at + 1, 7
    more = octet > 0x7F
    while more.any():
        octet = octets[at].astype(np.int64)
        value |= np.where(more, (octet & 0x7F) << shift, 0)
        at = at + more
        more &= octet > 0x7F
        shift += 7
    return (value >> 1) ^ -(value & 1), at
