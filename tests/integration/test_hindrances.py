"""A reader that nobody lets read says so in one sentence, with the way out."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from agents.handover import Batch, Partition
from agents.reader import Reader
from agents.settling import until_settled
from agents.topics import log_identities
from compose.provisioning import provision_topics
from compose.settings import Settings
from projections.sinks.memory import MemorySink
from projections.sinks.sink import LogIdentity
from projections.views import views
from schemas.envelope import encode
from schemas.log import Place
from schemas.partitions import partition_of
from schemas.streams import streams
from tests.servers import Servers
from tests.working import command, produce, provision_log, refused, until, viewed

pytestmark = [pytest.mark.usefixtures("kafka"), pytest.mark.timeout(150)]

PARTITIONS = {name: topic.partitions for name, topic in streams().topics.items()}
MESSAGE = encode(viewed("view", "film"), event_id="view", source="/tests")
HOME = Partition("views", partition_of(MESSAGE.key, PARTITIONS["views"]))


@asynccontextmanager
async def reading(settings: Settings, sink: MemorySink) -> AsyncIterator[Reader]:
    async def fold(batch: Batch) -> None:
        """All is well."""

    async def deliver(batch: Batch) -> None:
        await reader.process(batch)

    reader = Reader(
        settings,
        views,
        sink,
        PARTITIONS,
        fold=fold,
        deliver=deliver,
        look_around_seconds=0.5,
        blocked_seconds=0.5,
    )
    running = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        reader.stop()
        await asyncio.wait_for(running, 30)


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[Reader]:
    await provision_topics(settings, streams().topics)
    async with reading(settings, MemorySink(views)) as reader:
        yield reader


async def test_an_open_transaction_that_holds_up_a_partition_is_named_until_it_ends(
    settings: Settings, reader: Reader
) -> None:
    transactional_id = settings.named("forgotten")
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=transactional_id
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(settings.named("views"), MESSAGE.value, MESSAGE.key, headers=MESSAGE.headers)
        await produce(settings, [viewed("view", "film")])

        async def says_so() -> bool:
            return transactional_id in reader.standstills.refusals.get(HOME, "")

        await until(says_so)
        assert "2 records lie behind it" in reader.standstills.refusals[HOME]
        assert f"--partition {HOME.number} --start-offset 0" in reader.standstills.refusals[HOME]
        await producer.abort_transaction()

        async def goes_on() -> bool:
            return HOME not in reader.standstills.refusals

        await until(goes_on)


@pytest.mark.usefixtures("postgres")
async def test_a_moment_behind_an_open_transaction_is_not_answered_for_until_it_ends(
    settings: Settings, servers: Servers
) -> None:
    await provision_log(settings)
    await produce(settings, [viewed("view", "film")])
    before = datetime.now(UTC) - timedelta(hours=1)
    transactional_id = settings.named("forgotten")
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=transactional_id
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(settings.named("views"), MESSAGE.value, MESSAGE.key, headers=MESSAGE.headers)
        await produce(settings, [viewed("view-2", "film")])
        then = datetime.now(UTC)
        said = await refused(settings, servers, "as-of", then.isoformat(), "top")
        assert re.search(rf"Error: a transaction of producer .*{transactional_id}.* holds up .*abort --topic", said), (
            said
        )
        await until_settled(settings, [HOME], before)
        await producer.abort_transaction()
    said = await command(settings, servers, "as-of", then.isoformat(), "top")
    assert re.search(r"film .* 2 ", said), said


async def test_a_stranger_in_the_group_is_named_and_what_it_was_given(settings: Settings, reader: Reader) -> None:
    stranger = AIOKafkaConsumer(
        settings.named("views"),
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.named(views.full_name),
        client_id="stranger",
        partition_assignment_strategy=[StickyPartitionAssignor],
    )

    async def is_read() -> bool:
        return bool(reader.standings())

    await until(is_read)
    assert reader.lookout.strangers == []
    await stranger.start()
    try:
        await until(lambda: is_named(reader, f"'stranger' at .* was given {settings.named('views')}/"))
        (at, *_) = stranger.assignment()
        await stranger.commit({at: 0})
        await until(lambda: is_named(reader, "somebody commits offsets"))
    finally:
        await stranger.stop()


async def test_who_finds_a_stranger_in_the_group_names_it_and_reads_once_it_is_gone(settings: Settings) -> None:
    """It deals partitions out in another way, so the group takes in nobody of ours."""
    await provision_topics(settings, streams().topics)
    stranger = AIOKafkaConsumer(
        settings.named("views"),
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.named(views.full_name),
        client_id="stranger",
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        enable_auto_commit=False,
    )
    await stranger.start()
    async with reading(settings, MemorySink(views)) as reader:
        await until(lambda: is_named(reader, "'stranger' at "))
        await stranger.stop()

        async def is_read() -> bool:
            return bool(reader.standings())

        await until(is_read)


async def test_a_log_that_ends_before_the_checkpoint_is_refused_with_the_way_out(settings: Settings) -> None:
    await provision_topics(settings, streams().topics)
    await produce(settings, [viewed("view", "film")])
    sink = MemorySink(views)
    await sink.checkpoint(*HOME, await identity(settings))
    await sink.apply([], expected=Place(*HOME, 0), next_offset=100)
    async with reading(settings, sink) as reader:
        await until(lambda: is_refused(reader))
        assert (
            f"views is at {HOME} at 100, but {HOME} ends at 1: the log was truncated"
            in reader.standstills.refusals[HOME]
        )
        assert "faust -A agents rebuild views" in reader.standstills.refusals[HOME]


async def test_events_that_are_gone_before_they_were_folded_are_missed_in_words(settings: Settings) -> None:
    await provision_topics(settings, streams().topics)
    await produce(settings, [viewed("view", "film")] * 7)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(settings.named("views"), HOME.number): RecordsToDelete(before_offset=5)})
    await admin.close()
    async with reading(settings, MemorySink(views)) as reader:
        await until(lambda: is_refused(reader))
        assert f"{HOME} begins at 5: events are gone that were never folded" in reader.standstills.refusals[HOME]


async def identity(settings: Settings) -> LogIdentity:
    topic = settings.named("views")
    return (await log_identities(settings.kafka_bootstrap, [topic]))[topic]


async def is_refused(reader: Reader) -> bool:
    return HOME in reader.standstills.refusals


async def is_named(reader: Reader, words: str) -> bool:

    return any(re.search(words, why) for why in reader.lookout.strangers)
