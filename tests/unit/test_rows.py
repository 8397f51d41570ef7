"""Few statements do what many changes do."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from projections.changes import Change, Increment, Remove, Tally, Upsert, Upserts, singly
from projections.positions import positions
from projections.sinks.memory import MemorySink
from projections.sinks.rows import Statement, statements
from projections.statistics import statistics
from tests.given import recorded, viewed

keys = st.builds(lambda a, b: {"a": a, "b": b}, st.sampled_from("xyz"), st.integers(0, 1))
numbers = st.integers(0, 5)
changes = st.lists(
    st.one_of(
        st.builds(Increment, st.just("t"), keys, numbers, st.sampled_from(["views", "likes"])),
        st.builds(
            lambda counts: Tally("t", ("a", "b"), counts),
            st.dictionaries(st.tuples(st.sampled_from("xyz"), st.integers(0, 1)), numbers, max_size=4),
        ),
        st.builds(lambda key, n: Upsert("t", key, {"title": n}), keys, numbers),
        st.builds(lambda key, n, m: Upsert("t", key, {"moment": n, "seconds": m}, "moment"), keys, numbers, numbers),
        st.builds(
            lambda key, n, m, g: Upsert("t", key, {"moment": n, "seconds": m, "moved": g}, "moment", "moved"),
            *(keys, numbers, numbers, numbers),
        ),
        st.builds(
            lambda rows: Upserts("t", ("a", "b"), ("moment", "seconds", "moved"), rows, "moment", "moved"),
            st.lists(
                st.tuples(st.sampled_from("xyz"), st.integers(0, 1), numbers, numbers, st.none() | numbers), max_size=5
            ),
        ),
        st.builds(lambda key, n, m: Upsert("t", key, {"seconds": m, "title": n}), keys, numbers, numbers),
        st.builds(lambda key: Upsert("t", key, {}), keys),
        st.builds(lambda key: Remove("t", key), keys),
        st.builds(lambda a: Remove("t", {"a": a}), st.sampled_from("xyz")),
    ),
    max_size=25,
)


def as_changes(statement: Statement) -> list[Change]:
    """What a statement does to each of its rows."""
    shape, rows = statement
    meant: list[Change] = []
    for row in rows:
        key = dict(zip(shape.key_columns, row, strict=False))
        values = row[len(key) :]
        if shape.kind is Increment:
            meant.append(Increment(shape.table, key, values[0], shape.columns[0]))
        elif shape.newest_by is not None:
            meant += singly([Upserts(*shape[1:4], [row], shape.newest_by, shape.greatest)])
        elif shape.kind is Upsert:
            meant.append(Upsert(shape.table, key, dict(zip(shape.columns, values, strict=True))))
        else:
            meant.append(Remove(shape.table, key))
    return meant


def rows_after(written: Sequence[Change]) -> object:
    sink = MemorySink(positions)
    for change in written:
        sink.write(change)
    return sink.rows("t")


@given(changes)
def test_statements_do_what_the_changes_do_one_by_one(given_changes: list[Change]) -> None:
    meant = [change for statement in statements(given_changes) for change in as_changes(statement)]
    assert rows_after(meant) == rows_after(given_changes)


@given(changes)
def test_no_statement_touches_a_row_twice(given_changes: list[Change]) -> None:
    for statement in statements(given_changes):
        keys_of_rows = {row[: len(statement.shape.key_columns)] for row in statement.rows}
        assert len(keys_of_rows) == len(statement.rows)


def test_a_batch_of_views_is_one_statement_a_table() -> None:
    views = recorded([viewed(f"film-{n % 7}", f"view-{n}", at=f"2{n % 4}:{n % 60:02}") for n in range(1_000)])
    assert [s.shape.table for s in statements(statistics.fold(views))] == ["hourly", "daily"]


def test_rows_are_in_the_order_of_their_keys_so_that_two_workers_lock_them_in_one_order() -> None:
    views = recorded([viewed(f"film-{n}", f"view-{n}") for n in (3, 1, 2)])
    for statement in statements(statistics.fold(views)):
        assert [row[0] for row in statement.rows] == ["film-1", "film-2", "film-3"]
