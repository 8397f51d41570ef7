"""Two states side by side: every row that differs is told, and no other."""

from collections.abc import AsyncIterator, Mapping

from hypothesis import given
from hypothesis import strategies as st

from projections.queries.contents import Difference, differences, written
from projections.queries.rows import Row

states = st.dictionaries(st.tuples(st.sampled_from(["hourly", "daily"]), st.integers(0, 5)), st.integers(0, 2))


async def rows(state: Mapping[tuple[str, int], int]) -> AsyncIterator[Row]:
    for (table, key), views in sorted(state.items()):
        yield Row(table, (key,), {"views": views})


@given(states, states)
async def test_whatever_differs_is_told_with_both_of_its_rows(
    one: dict[tuple[str, int], int], other: dict[tuple[str, int], int]
) -> None:
    found = [difference async for difference in differences(rows(one), rows(other))]
    assert found == [
        Difference(*(Row(at[0], (at[1],), {"views": state[at]}) if at in state else None for state in (one, other)))
        for at in sorted(one.keys() | other.keys())
        if one.get(at) != other.get(at)
    ]


def test_the_order_in_which_values_were_written_is_no_difference() -> None:
    assert written(Row("videos", ("a",), {"x": 1, "y": [2]})) == written(Row("videos", ("a",), {"y": [2], "x": 1}))
