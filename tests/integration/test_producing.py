"""What `docs/producing.md` tells other services to do works as written: on the right partition, under the right key, read by our reader."""

import asyncio
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.handover import Partition
from agents.parking import Parked
from agents.reading import read_records
from compose.provisioning import provision_topics
from compose.settings import Settings
from schemas.events import Event, PositionUpdated, VideoViewed
from schemas.streams import streams
from tests.elsewhere import Elsewhere
from tests.given import as_model
from tests.servers import Servers

ROOT = Path(__file__).parents[2]
PAGE = ROOT.joinpath("docs/producing.md").read_text()
EXAMPLE = re.compile(
    r"Save as `(?P<file>[^`]+)`, run `(?P<command>[^`]+)`:\n\n```\w+\n(?P<source>.*?)^```", re.S | re.M
)
RUN_SECONDS = 180

pytestmark = pytest.mark.timeout(240)


class Example(NamedTuple):
    file: str
    command: str
    source: str


EXAMPLES = [Example(**found.groupdict()) for found in EXAMPLE.finditer(PAGE)]


class Produced(NamedTuple):
    """What each example printed, and what a worker reads of what it sent."""

    told: dict[str, str]
    sent: dict[str, list[Event]]
    poison: list[Parked]


@pytest.fixture(scope="module")
def produced(elsewhere: Elsewhere, servers: Servers, kafka: None) -> Produced:
    """Runs every example side by side, each as another service would: with what `make up` and the page brought, nothing of our source."""
    settings = servers.settings(f"{servers.prefix}producing_")
    asyncio.run(provision_topics(settings, streams().topics))
    for installed in (".stack", "node_modules"):
        elsewhere.folder.joinpath(installed).symlink_to(ROOT / installed)
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(lambda example: run(example, elsewhere, settings), EXAMPLES))
    sent, poison = asyncio.run(read_log(settings))
    return Produced({example.file: said for example, said in zip(EXAMPLES, told, strict=True)}, sent, poison)


def run(example: Example, elsewhere: Elsewhere, settings: Settings) -> str:
    """What the example prints. Python is the other service's own."""
    elsewhere.folder.joinpath(example.file).write_text(example.source)
    addresses = {"ET_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "ET_PREFIX": settings.prefix}
    done = subprocess.run(
        ["bash", "-c", example.command],
        cwd=elsewhere.folder,
        env=os.environ | addresses | {"PATH": f"{elsewhere.python.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{example.file}: {done.stdout}\n{done.stderr}"
    return done.stdout


async def read_log(settings: Settings) -> tuple[dict[str, list[Event]], list[Parked]]:
    """The events of each source and all poison, as a worker reads them, partition by partition."""
    sent: dict[str, list[Event]] = {}
    poison: list[Parked] = []
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, enable_auto_commit=False) as consumer:
        for topic in ("views", "positions"):
            count = streams().topics[topic].partitions
            partitions = [TopicPartition(settings.named(topic), number) for number in range(count)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning()
            for partition, end in (await consumer.end_offsets(partitions)).items():
                while await consumer.position(partition) < end:
                    found = await consumer.getmany(partition, timeout_ms=1_000)
                    records = found.get(partition, [])
                    read = read_records(records, Partition(topic, partition.partition), count)
                    poison += read.poison
                    source = {record.offset: dict(record.headers)["ce_source"].decode() for record in records}
                    for decoded in read.decoded:
                        name = source[decoded.recorded.place.offset].removeprefix("/examples/")
                        sent.setdefault(name, []).append(as_model(decoded.event))
    return sent, poison


def test_the_page_shows_a_shell_two_pythons_java_and_node() -> None:
    assert [example.file for example in EXAMPLES] == [
        "produce.sh",
        "produce.py",
        "produce_typed.py",
        "Produce.java",
        "produce.mjs",
    ]


def test_only_the_typed_example_needs_anything_of_ours() -> None:
    assert [example.file for example in EXAMPLES if "entertainmenttime_schemas" in example.source] == [
        "produce_typed.py"
    ]


@pytest.mark.parametrize("source", ["kcat", "python", "python-typed", "java", "node"])
def test_an_example_sends_a_view_and_a_position_that_a_worker_reads(produced: Produced, source: str) -> None:
    view, position = produced.sent[source]
    assert isinstance(view, VideoViewed)
    assert (view.video_id, view.viewer_id, view.watched_seconds) == ("heat", "p-4f6b", 40)
    assert isinstance(position, PositionUpdated)
    assert (position.video_id, position.viewer_id, position.position_seconds) == ("heat", "p-4f6b", 95.5)
    assert position.state == "paused"


def test_no_example_is_parked_for_its_key_its_partition_or_its_bytes(produced: Produced) -> None:
    assert produced.poison == []


@pytest.mark.parametrize("file", ["produce.py", "produce_typed.py", "Produce.java", "produce.mjs"])
def test_an_example_says_where_its_events_lie(produced: Produced, file: str) -> None:
    assert re.fullmatch(r"\w*views/\d+ at \d+\n\w*positions/\d+ at \d+\n", produced.told[file])
