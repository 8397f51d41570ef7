"""How far behind each version of each projection is: its checkpoints against the true end of the log."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from elasticsearch import AsyncElasticsearch
from redis.asyncio import Redis

from agents.handover import Partition
from agents.hindrances import who_is_in
from agents.log_ends import open_log_ends
from agents.readers import Seen, read_readers
from agents.registry import is_ours, why_left_alone
from agents.standing import State, state_of
from agents.strangers import strangers_in
from compose.settings import Settings
from projections.queries.checkpoints import checkpoints_of
from projections.queries.versions import Version, Versions, read_versions
from schemas.log import Place
from schemas.streams import Streams

UNREAD_SECONDS = 30.0  # behind for as long, and no worker reads it: a rebalance is over by then


class Lag(NamedTuple):
    """One partition of one version of a projection.

    `end_offset` is what a reader of committed records can reach. `lag_seconds` is the age of the oldest record not folded yet, 0.0 when
    there is none, None when the log does not say. `worker` reads it just now; `why` is the sentence of a partition that stands still.
    """

    projection: str
    version: int
    topic: str
    partition: int
    next_offset: int
    end_offset: int
    lag_seconds: float | None
    worker: str | None = None
    why: str | None = None

    @property
    def lag_events(self) -> int:
        return max(0, self.end_offset - self.next_offset)

    @property
    def is_unread(self) -> bool:
        """Behind for longer than a rebalance takes, and no worker reads it."""
        return self.worker is None and (self.lag_seconds or 0) > UNREAD_SECONDS

    @property
    def state(self) -> State:
        return state_of(self.lag_events, self.lag_seconds, self.why)

    def told(self) -> dict[str, Any]:
        """All of it, by name."""
        return {**self._asdict(), "lag_events": self.lag_events, "state": self.state}


async def lags(
    settings: Settings, streams: Streams, pool: Any, redis: Redis, elasticsearch: AsyncElasticsearch
) -> Sequence[Lag]:
    """Every partition of every version that is folded.

    Raises StoreUnavailable, KafkaError or TimeoutError when a server cannot be asked.
    """
    versions = Versions(await read_versions(pool))
    folded = [version for name in streams.projections for version in versions.known(name) if version.state != "retired"]
    async with open_log_ends(settings) as log:
        # The ends first: what is appended while the checkpoints are read is no lag.
        ends = await log.ends(
            Partition(topic, number) for topic, spec in streams.topics.items() for number in range(spec.partitions)
        )
        reached = {}
        for version in folded:
            checkpoints = checkpoints_of(version, settings.prefix, pool, redis, elasticsearch)
            reached[version.full_name] = await checkpoints.next_offsets(
                partition for partition in ends if partition.topic in streams.projections[version.projection].reads
            )
        behind = {
            Place(*partition, next_offset)
            for offsets in reached.values()
            for partition, next_offset in offsets.items()
            if next_offset < ends[Partition(*partition)]
        }
        appended = await log.appended_at(behind)
    found = list(_lags(folded, reached, ends, appended, await read_readers(pool), datetime.now(UTC)))
    unread = {(lag.projection, lag.version) for lag in found if lag.is_unread}
    why = {
        version.full_name: await _why_unread(version, settings, streams)
        for version in folded
        # A version that is built is folded by the command that builds it, which tells of itself.
        if (version.projection, version.number) in unread and version.state != "building"
    }
    return [lag._replace(why=why.get(f"{lag.projection}_v{lag.version}")) if lag.is_unread else lag for lag in found]


async def _why_unread(version: Version, settings: Settings, streams: Streams) -> str:
    """Why no worker of ours reads a version's partitions, and the way out. Raises KafkaError."""
    if not is_ours(version, streams):
        return why_left_alone(version, streams)
    group = settings.named(version.full_name)
    strangers = who_is_in(group, (await strangers_in(settings.kafka_bootstrap, group)).members)
    return "; ".join(strangers) or f"{version.full_name} is behind, and no worker reads it: start one"


def _lags(
    folded: Iterable[Version],
    reached: Mapping[str, Mapping[tuple[str, int], int]],
    ends: Mapping[Partition, int],
    appended: Mapping[Place, datetime],
    readers: Mapping[tuple[str, Partition], Seen],
    now: datetime,
) -> Iterable[Lag]:
    for version in folded:
        for (topic, number), next_offset in reached[version.full_name].items():
            partition = Partition(topic, number)
            oldest = appended.get(Place(topic, number, next_offset))
            seconds = 0.0 if next_offset >= ends[partition] else None
            if oldest is not None:
                seconds = max(0.0, round((now - oldest).total_seconds(), 3))
            seen = readers.get((version.full_name, partition), Seen(None, None))
            yield Lag(version.projection, version.number, topic, number, next_offset, ends[partition], seconds, *seen)
