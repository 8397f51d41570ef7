"""Columns that are counted late are counted the same."""

from collections import Counter
from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from projections.occurrences import Occurrences

pairs = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.integers(-3, 2**40)), max_size=30)


def occurrences(found: list[tuple[str, int]]) -> Occurrences:
    return Occurrences.of([text for text, _ in found], np.array([number for _, number in found], dtype=np.int64))


@given(pairs)
def test_they_are_what_a_counter_counts(found: list[tuple[str, int]]) -> None:
    counted = occurrences(found)
    assert counted == Counter(found)
    assert len(counted) == len(set(found))
    assert dict(counted.items()) == {pair: counted[pair] for pair in counted}


@given(st.lists(pairs, min_size=1, max_size=5))
def test_together_they_are_the_sum(parts: list[list[tuple[str, int]]]) -> None:
    assert Occurrences.together([occurrences(part) for part in parts]) == Counter(chain.from_iterable(parts))


@given(pairs)
def test_with_other_numbers_the_texts_stay(found: list[tuple[str, int]]) -> None:
    counted = occurrences(found)
    assert counted.at(counted.numbers // 60) == Counter((text, number // 60) for text, number in found)
    named = Occurrences.together([counted.at(counted.numbers // 60, str)] * 2)
    assert named == Counter((text, str(number // 60)) for text, number in found * 2)
