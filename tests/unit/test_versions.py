"""Which version answers, as far as it is known."""

import pytest

from projections.queries.versions import Version, Versions, declared
from projections.views import views


def version(number: int, state: str = "active") -> Version:
    return Version("views", number, 1, 1, state)  # type: ignore[arg-type]


def test_the_declared_version_answers_where_the_registry_has_none() -> None:
    versions = Versions([version(3, "building")])
    assert versions.active("views") == declared("views") == Version("views", views.version, views.version, 1, "active")


def test_the_active_version_answers() -> None:
    versions = Versions([version(1, "ready"), version(2), version(3, "building")])
    assert versions.active("views").table("views") == "views_v2"
    assert [known.number for known in versions.known("views")] == [1, 2, 3]


def test_within_one_answer_a_switch_changes_nothing() -> None:
    versions = Versions([version(1), version(2, "ready")])
    with versions.one_answer():
        before = versions.active("views")
        versions.tell([version(1, "ready"), version(2)])
        assert versions.active("views") == before
    assert versions.active("views").number == 2


def test_one_answer_may_lie_within_another() -> None:
    """A task that a request has begun outlives it, and asks anew each time."""
    versions = Versions([version(1)])
    with versions.one_answer():
        versions.active("views")
        versions.tell([version(2)])
        with versions.one_answer():
            assert versions.active("views").number == 2
        assert versions.active("views").number == 1


async def test_who_waits_for_a_change_is_woken_by_a_change_alone() -> None:
    versions = Versions([version(1)])
    changed = versions.changed
    versions.tell([version(1)])
    assert not changed.is_set()
    versions.tell([version(2)])
    assert changed.is_set()


@pytest.mark.parametrize("number", [1, 7])
def test_the_same_fold_may_make_another_version(number: int) -> None:
    twin = views.at(number)
    assert (twin.full_name, twin.event_types, twin.counts_once) == (f"views_v{number}", views.event_types, True)
    assert views.full_name == f"views_v{views.version}"
