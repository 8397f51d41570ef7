"""Which version of each projection answers now."""

from projections.sinks.redis_keys import Keys, shards_of
from schemas.streams import streams


def active_version(projection: str) -> int:
    """The version that `streams.yaml` declares; every read goes through here, so that a switch is one step."""
    return streams().projections[projection].version


def active_table(projection: str, table: str) -> str:
    """A Postgres table of the projection, as it is called in the version that answers."""
    return f"{table}_v{active_version(projection)}"


def active_shards(prefix: str, projection: str, version: int | None = None, shards: int | None = None) -> list[Keys]:
    """The shards in Redis of the version that answers, unless a version and a number of shards are given."""
    declared = streams().projections[projection]
    return shards_of(prefix, projection, version or active_version(projection), shards or declared.shards)
