"""Record batches read column by column: what aiokafka reads one by one."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from agents.blocks import Block
from agents.fetching import _Kept, as_blocks
from schemas.columns import Listed
from schemas.envelope import encode
from schemas.usual import decode_usual
from tests.given import viewed

AT = TopicPartition("views", 3)
HEADERS = ("ce_type", "ce_id", "content-type")

some_bytes = st.one_of(st.none(), st.binary(max_size=300), st.sampled_from([b"", b"x" * 63, b"x" * 64, b"y" * 9_000]))
values = st.one_of(st.sampled_from([None, b"", b"same", b"e-1", b"ab", b"\xff"]), st.binary(max_size=3))
alike = st.tuples(*(st.tuples(st.just(name), values) for name in HEADERS)).map(list)
headers = st.one_of(alike, st.lists(st.tuples(st.sampled_from([*HEADERS, "ä", ""]), values), max_size=4))
records = st.tuples(some_bytes, some_bytes, headers, st.integers(-100_000, 100_000))


class Written(list[tuple[Any, ...]]):
    """Records of one batch."""

    def as_bytes(self, base_offset: int, compression: int, *, transactional: bool = False) -> bytes:
        builder = DefaultRecordBatchBuilder(2, compression, transactional, 7 if transactional else -1, 0, 0, 10**9)
        for offset, (key, value, with_headers, later_ms) in enumerate(self):
            builder.append(offset, 1_777_666_500_000 + later_ms, key, value, with_headers)
        data = bytearray(builder.build())
        data[0:8] = base_offset.to_bytes(8, "big")
        return bytes(data)


def read(message_set: bytes, from_offset: int, deserializer: Any, aborted: Sequence[tuple[int, int]] = ()) -> Any:
    kept = _Kept(message_set)
    return fetcher.PartitionRecords(
        AT, kept, list(aborted), from_offset, deserializer, None, True, fetcher.READ_COMMITTED
    )


def read_plainly(message_set: bytes, from_offset: int, **how: Any) -> list[Any]:
    return list(read(message_set, from_offset, None, **how))


def read_as_block(message_set: bytes, from_offset: int, **how: Any) -> Block | None:
    blocks = list(read(message_set, from_offset, as_blocks, **how))
    assert len(blocks) <= 1
    return blocks[0] if blocks else None


def same(block: Block, plain: Sequence[Any]) -> None:
    assert [(r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in block] == [
        (r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in plain
    ]
    listed = Listed(plain)
    assert block.offsets.tolist() == listed.offsets.tolist()
    assert block.times_ms.tolist() == listed.times_ms.tolist()
    assert (block.keys, block.values) == (listed.keys, listed.values)
    for header in (*HEADERS, "none"):
        assert list(block.each(header)) == list(listed.each(header))
        assert block.common(header) == listed.common(header)
        for longest in (1, 300):
            ours, theirs = block.plain(header, longest), listed.plain(header, longest)
            numbers = range(len(plain))
            assert (ours and ours(numbers)) == (theirs and theirs(numbers))


@given(
    st.lists(
        st.tuples(st.lists(records, min_size=1, max_size=12).map(Written), st.sampled_from([0, 1, 2, 3, 4])), max_size=4
    ),
    st.integers(0, 20),
    st.integers(0, 50),
    st.slices(30),
)
def test_a_block_holds_what_aiokafka_reads_one_by_one(
    batches: list[tuple[Written, int]], from_offset: int, cut_off: int, part: slice
) -> None:
    message_set, offset = b"", 5
    # A broker begins with the batch in which the wanted record lies.
    from_offset = min(from_offset, offset + len(batches[0][0])) if batches else from_offset
    for batch, compression in batches:
        message_set += batch.as_bytes(offset, compression)
        offset += len(batch) + 2
    message_set = message_set[: len(message_set) - cut_off] if cut_off < len(message_set) else message_set
    plain, block = read_plainly(message_set, from_offset), read_as_block(message_set, from_offset)
    assert (block is None) == (not plain)
    if block is not None:
        same(block, plain)
        if plain[part] and (part.step or 1) > 0:
            same(block[part], plain[part])


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=6))
def test_what_was_aborted_is_in_no_block(courses: list[tuple[bool, int]]) -> None:
    message_set, offset, aborted = b"", 0, []
    for is_aborted, number in courses:
        batch = Written([(b"k", b"aborted" if is_aborted else b"kept", [], 0)] * number)
        if is_aborted:
            aborted.append((7, offset))
        message_set += batch.as_bytes(offset, 0, transactional=True)
        offset += number
        marker = bytearray(
            Written([(b"\0\0\0\0" if is_aborted else b"\0\0\0\1", b"\0" * 6, [], 0)]).as_bytes(
                offset, 0, transactional=True
            )
        )
        marker[21:23] = (0x30).to_bytes(2, "big")  # control and transactional
        marker[17:21] = int(calc_crc32c(bytes(marker[21:]))).to_bytes(4, "big")
        message_set += bytes(marker)
        offset += 1
    plain = read(message_set, 0, None, aborted)
    blocks = read(message_set, 0, as_blocks, aborted)
    expected, found = list(plain), list(blocks)
    assert [record.value for block in found for record in block] == [record.value for record in expected]
    assert blocks.next_fetch_offset == plain.next_fetch_offset


def test_a_byte_that_changed_on_the_way_is_seen() -> None:
    data = bytearray(Written([(b"k", b"value", [], 0)]).as_bytes(0, 0))
    data[-3] ^= 1
    with pytest.raises(CorruptRecordException):
        read_as_block(bytes(data), 0)


def test_a_block_of_our_own_views_is_decoded_as_the_records_are() -> None:
    messages = [encode(viewed("film", f"v-{i}"), event_id=f"e-{i}", source="/tests") for i in range(1_000)]
    batch = Written([(m.key, m.value, m.headers, 5) for m in messages])
    message_set = batch.as_bytes(40, 3)
    block, plain = read_as_block(message_set, 40), read_plainly(message_set, 40)
    assert block is not None
    usual, listed = decode_usual(block, "views"), decode_usual(plain, "views")
    assert usual is not None
    assert listed is not None
    assert list(usual) == list(listed)
