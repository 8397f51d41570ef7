"""Partitions as Kafka's own clients compute them."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from schemas.partitions import partition_of, partitions_of


@given(st.lists(st.binary(max_size=70), max_size=50), st.integers(1, 100))
def test_a_batch_lies_where_another_client_puts_it(keys: list[bytes], partitions: int) -> None:
    assert list(partitions_of(keys, partitions)) == [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]


def test_a_known_key_lies_where_the_java_client_puts_it() -> None:
    # From Kafka's own UtilsTest#testMurmur2: murmur2("a-little-bit-long-string") == -985981536.
    assert partition_of(b"a-little-bit-long-string", 2**31) == -985_981_536 & 0x7FFFFFFF
