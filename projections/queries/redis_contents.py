"""The state of a projection in Redis as rows: what its shards, journals and packed buckets mean, and not how they lie."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from projections.queries.rows import Row
from projections.sinks.redis_keys import Keys
from projections.sinks.redis_packing import unpacked
from projections.sinks.redis_scripts import reaching_redis
from projections.sinks.redis_windows import ROLLING, SPANS
from projections.sinks.sink import StoreUnavailable

READ_AT_ONCE = 200
SPAN_NAMES = {span.name for span in SPANS}
POSITIONS = "at"


class Group(NamedTuple):
    """What several keys hold together: a bucket with its frozen and packed parts, in every shard."""

    table: str
    part: tuple[Any, ...]


async def redis_rows(redis: Redis, shards: Sequence[Keys]) -> AsyncGenerator[Row, None]:
    """Every row of these shards, ordered by table and key.

    Raises StoreUnavailable, also where nothing was prepared, or while a batch is on its way (who asks the sink for the checkpoint ends it).
    """
    names: dict[Group, list[bytes]] = defaultdict(list)
    edges: dict[str, set[int]] = defaultdict(set)
    with reaching_redis():
        for keys in shards:
            state = await _state(redis, keys)
            for window in ROLLING:
                if edge := state.get(f"edge:{window.name}".encode()):
                    edges[window.name].add(int(edge))
            for name in {name async for name in redis.scan_iter(match=f"{keys.root}*", count=1_000)}:
                if group := _group(name.decode().removeprefix(keys.root)):
                    names[group].append(name)
        for window_name, found in edges.items():
            names[Group("edges", (window_name, *sorted(found)))] = []
        groups = sorted(names)
        for first in range(0, len(groups), READ_AT_ONCE):
            chunk = groups[first : first + READ_AT_ONCE]
            values = iter(await _read(redis, shards, [name for group in chunk for name in names[group]]))
            for group in chunk:
                if group.table == "edges":
                    yield Row("edges", group.part, {})
                    continue
                members = _together([next(values) for _ in names[group]])
                for member in sorted(members):
                    yield Row(group.table, (*group.part, member), _told(group.table, members[member]))


async def _state(redis: Redis, keys: Keys) -> dict[Any, Any]:
    state: dict[Any, Any] = await redis.hgetall(keys.state)
    if b"epoch" not in state:
        raise StoreUnavailable("redis", f"there is no state at {keys.root}: a worker makes it")
    checkpoints: dict[Any, Any] = await redis.hgetall(keys.checkpoints)
    if any(b">" in value for value in checkpoints.values()):
        raise StoreUnavailable("redis", f"a batch is on its way at {keys.root}")
    return state


def _group(name: str) -> Group | None:
    table, _, rest = name.partition(":")
    if table in ("checkpoints", "state", "journal", "numbered"):
        return None
    if table in SPAN_NAMES:
        return Group(table, (int(rest.partition(":")[0]),))
    return Group(table, tuple(rest.split("/")) if rest else ())


async def _read(redis: Redis, shards: Sequence[Keys], names: Sequence[bytes]) -> list[dict[str, Any]]:
    """What lies at each key, by member; a set's members hold nothing."""
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.type(name)
        types = await pipeline.execute()
        for name, type_ in zip(names, types, strict=True):
            match type_:
                case b"hash":
                    pipeline.hgetall(name)
                case b"zset":
                    pipeline.zrange(name, 0, -1, withscores=True)
                case b"set":
                    pipeline.smembers(name)
                case _:
                    pipeline.get(name)
        # After the values: packed ones name films by their places in these lists, which only grow.
        for keys in shards:
            pipeline.lrange(keys.numbered, 0, -1)
        found = await pipeline.execute()
    numbered = {keys.root.encode(): [one.decode() for one in found.pop(len(names))] for keys in shards}
    roots = (next(root for root in numbered if name.startswith(root)) for name in names)
    return [_members(type_, value, numbered[root]) for type_, value, root in zip(types, found, roots, strict=True)]


def _members(type_: bytes, value: Any, numbered: Sequence[str]) -> dict[str, Any]:
    match type_:
        case b"hash":
            return {member.decode(): int(held) if held.isdigit() else held.decode() for member, held in value.items()}
        case b"zset":
            return {member.decode(): int(score) for member, score in value}
        case b"set":
            return {member.decode(): None for member in value}
        case b"string":
            return dict(unpacked(value, numbered))
    return {}


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of the same member add up; anything else lies in one place only."""
    members: dict[str, Any] = {}
    for part in parts:
        for member, held in part.items():
            members[member] = members[member] + held if isinstance(members.get(member), int) else held
    return members


def _told(table: str, held: Any) -> dict[str, Any]:
    if table == POSITIONS:
        moment, _, values = held.partition(" ")
        return {"moment": int(moment), **orjson.loads(values)}
    return {} if held is None else {"views": held}
