"""Which partition a key lies on: murmur2 as Kafka's own clients compute it (org.apache.kafka.common.utils.Utils#murmur2).

A whole batch is hashed at once with NumPy, since in plain Python the hash would halve the speed of a fold.
"""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SEED = 0x9747B28C
M = 0x5BD1E995
WORD = 0xFFFFFFFF
POSITIVE = 0x7FFFFFFF
FEW = 8  # keys that plain Python is faster with


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of one key."""
    whole = len(key) // 4
    h = SEED ^ len(key)
    for k in struct.unpack_from(f"<{whole}I", key):
        k = k * M & WORD
        k = (k ^ k >> 24) * M & WORD
        h = (h * M & WORD) ^ k
    if rest := key[whole * 4 :]:
        h = (h ^ int.from_bytes(rest, "little")) * M & WORD
    h = (h ^ h >> 13) * M & WORD
    return ((h ^ h >> 15) & POSITIVE) % partitions


def partitions_of(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """The partition of each key, in order."""
    if len(keys) <= FEW:
        return np.array([partition_of(key, partitions) for key in keys], dtype=np.int64)
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    words = max(1, (int(lengths.max()) + 3) // 4)
    # Each key padded with NULs to whole words, so that column i is the i-th word of every key.
    padded = np.array(keys, dtype=f"S{words * 4}").view("<u4").reshape(len(keys), words)
    with np.errstate(over="ignore"):
        h = np.uint32(SEED) ^ lengths.astype(np.uint32)
        whole = lengths // 4
        for i in range(words):
            k = padded[:, i] * M
            k ^= k >> np.uint32(24)
            k *= M
            h = np.where(i < whole, (h * M) ^ k, h)
        rest = lengths % 4
        tail = padded[np.arange(len(keys)), np.minimum(whole, words - 1)]
        h = np.where(rest > 0, (h ^ tail) * M, h)
        h ^= h >> np.uint32(13)
        h *= M
        h ^= h >> np.uint32(15)
    return (h & np.uint32(POSITIVE)).astype(np.int64) % partitions
