"""How a projection's keys are called in Redis: `t1_{leaderboard.v1.s0}:top:day`.

What stands in braces decides the slot of a cluster (Redis Cluster specification, "Hash tags"), so all keys of a shard lie together and one
script may touch them. Ids hold no slash (`schemas.bounds.Id`), so it may part them.
"""

from typing import NamedTuple
from zlib import crc32


class Keys(NamedTuple):
    """The names of one shard's keys."""

    prefix: str
    projection: str
    version: int
    shard: int = 0

    @property
    def root(self) -> str:
        """What every key of the shard begins with."""
        return f"{self.prefix}{{{self.projection}.v{self.version}.s{self.shard}}}:"

    @property
    def checkpoints(self) -> str:
        """A hash: `topic/partition` to the next offset (`redis_shard`), `…:log` to the log's identity, `…:step` to the step's name."""
        return self.root + "checkpoints"

    def journal(self, place: str) -> str:
        """A list: what is left to write of a batch on this `topic/partition`, and of those of others that are written with it."""
        return f"{self.root}journal:{place}"

    @property
    def state(self) -> str:
        """A hash: `epoch`, made by `prepare`, without which there is no state; for a board its edges, and what leaves it just now."""
        return self.root + "state"

    @property
    def deleted(self) -> str:
        """A set: the ids of deleted films."""
        return self.root + "deleted"

    def top(self, window: str) -> str:
        """A sorted set: each film's views in `window`."""
        return f"{self.root}top:{window}"

    def buckets(self, span: str) -> str:
        """A hash: the number of each bucket of this span that has views, to the sum of its views."""
        return f"{self.root}buckets:{span}"

    def bucket(self, span: str, number: int) -> str:
        """A hash: each film's views in a bucket, those apart that are frozen or packed. `number` counts spans since 1970."""
        return f"{self.root}{span}:{number}"

    def frozen(self, span: str, number: int) -> str:
        """A hash that nobody changes any more: what was in the bucket when it was frozen."""
        return self.bucket(span, number) + ":frozen"

    def packed(self, span: str, number: int) -> str:
        """One compressed value: what was frozen before."""
        return self.bucket(span, number) + ":packed"

    @property
    def numbered(self) -> str:
        """A list that only grows: the ids of the films in packed buckets, which hold their places in it."""
        return self.root + "numbered"

    def position(self, viewer_id: str, video_id: str) -> str:
        """A hash: the registers of each session in which this viewer watched this film."""
        return f"{self.root}at:{viewer_id}/{video_id}"

    def films(self, viewer_id: str) -> str:
        """A set: the films that this viewer has a `position` in."""
        return f"{self.root}of:{viewer_id}"

    @property
    def forgotten(self) -> str:
        """A set: the pseudonyms that are forgotten."""
        return self.root + "forgotten"


def shards_of(prefix: str, projection: str, version: int, shards: int) -> list[Keys]:
    """The keys of each shard of a projection."""
    return [Keys(prefix, projection, version, shard) for shard in range(shards)]


def shard_of(identity: str, shards: int) -> int:
    """The shard that an id lies in, the same in every process."""
    return crc32(identity.encode()) % shards if shards > 1 else 0


def channel(prefix: str) -> str:
    """Where each move of a checkpoint is told, as `leaderboard_v1 views 3 41207`: projection, topic, partition, next offset."""
    return prefix + "checkpoints"


def waits(prefix: str) -> str:
    """Where it is told that somebody waits for a version to fold records, as `leaderboard_v1 views:3:41206 views:7:12`."""
    return prefix + "waits"
