"""Which versions a worker folds, and which it leaves to another release."""

from agents.registry import kept_up, left_alone
from projections.queries.versions import Version, Versions
from schemas.streams import streams

OURS = streams().projections["views"].version


def of_views(versions: list[Version]) -> list[Version]:
    return [version for version in versions if version.projection == "views"]


def test_a_worker_folds_what_answers_and_what_could_and_nothing_else() -> None:
    states = ("retired", "ready", "active", "building")
    known = [Version("views", number, OURS, 1, state) for number, state in enumerate(states, start=1)]  # type: ignore[arg-type]
    assert of_views(kept_up(Versions(known), streams())) == known[1:3]


def test_a_version_of_another_fold_is_left_alone_with_the_way_out() -> None:
    older = Version("views", 1, OURS + 1, 1, "active")
    ours = Version("views", 2, OURS, 1, "ready")
    versions = Versions([older, ours])
    assert of_views(kept_up(versions, streams())) == [ours]
    (words,) = left_alone(versions, streams())
    assert "faust -A agents rebuild views" in words
    assert "faust -A agents switch views" in words


def test_what_is_declared_is_folded_where_the_registry_is_empty() -> None:
    assert [version.full_name for version in kept_up(Versions(), streams())] == [
        f"{name}_v{spec.version}" for name, spec in streams().projections.items()
    ]
