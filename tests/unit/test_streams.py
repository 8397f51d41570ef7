"""The map of the system says what is wrong with it."""

from pathlib import Path

import pytest
import yaml

from projections.all import PROJECTIONS
from schemas.events import EVENTS
from schemas.streams import WrongStreams, read_streams, streams


def with_changes(tmp_path: Path, *path_and_value: object) -> Path:
    *path, last, value = path_and_value
    content = yaml.safe_load(Path(__file__).parents[2].joinpath("streams.yaml").read_text())
    place = content
    for step in path:
        place = place[step]
    place[last] = value
    changed = tmp_path / "streams.yaml"
    changed.write_text(yaml.safe_dump(content))
    return changed


def test_every_projection_is_declared_with_its_version_and_topics() -> None:
    declared = {name: (spec.version, spec.topics) for name, spec in streams().projections.items()}
    assert declared == {name: (p.version, p.topics) for name, p in PROJECTIONS.items()}


def test_every_event_lies_on_a_declared_topic_under_its_key() -> None:
    for event in EVENTS.values():
        assert streams().topics[event.topic].key == event.key_field


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("topics", "views", "once_within", "six hours"), r"topics\.views\.once_within"),
        (("topics", "views", "partitions", 0), r"topics\.views\.partitions"),
        (("topics", "views", "retention", "7d"), r"topics\.views\.retention"),
        (("topics", "views", "colour", "red"), r"topics\.views\.colour"),
        (("projections", "search", "sink", "solr"), r"projections\.search\.sink"),
        (("projections", "search", "topics", ["film"]), "projections.search.topics names film"),
        (("agents", "search_agent", {"concurrency": 1}), "search_agent"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: tuple[object, ...], words: str) -> None:
    with pytest.raises(WrongStreams, match=words):
        read_streams(with_changes(tmp_path, *change))
