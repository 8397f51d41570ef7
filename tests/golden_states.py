"""What a release had made of the first half of the golden log, store by store, as it lay there: so that a later one goes on with it.

`python -m tests.golden_states NAME` folds it by the code that lies here, on servers of its own (or, with ET_SERVERS=stack, on those of
`make up`), and writes `tests/golden/states/NAME.jsonl`: once a release, and never again.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from elasticsearch.helpers import async_bulk
from redis.asyncio import Redis

from agents.fingerprints import GoldenRecord, golden_log
from agents.handover import Partition
from agents.registry import register_declared
from compose.provisioning import MIGRATIONS, provision_tables
from compose.settings import Settings
from projections.queries.versions import Version
from projections.sinks.postgres import TABLES
from projections.sinks.redis_layout import Limits
from schemas.golden import GOLDEN
from schemas.streams import streams
from tests.logs import PartitionInMemory
from tests.replay import Log, Replay, Stores, Way, all_declared, open_stores
from tests.servers import Servers

STATES = GOLDEN / "states"
WAY = Way(3, 20, 0.05, Limits(), "UTC")
OF_THE_INDEX_ALONE = ("creation_date", "uuid", "version", "provided_name")


class Made(NamedTuple):
    """One version of a projection, as the release made it."""

    number: int
    fold: int
    shards: int


class GoldenState(NamedTuple):
    """Lines of JSON: the first says what made the rest, of how many records of the golden log; each other is a table, a row, an index, a
    document or a key."""

    name: str
    records: int
    migrations: list[str]
    versions: dict[str, Made]
    lines: list[list[Any]]

    @classmethod
    def read(cls, path: Path) -> Self:
        header, *lines = map(orjson.loads, path.read_bytes().splitlines())
        versions = {name: Made(*made) for name, made in header["versions"].items()}
        return cls(path.stem, header["records"], header["migrations"], versions, lines)

    def write(self) -> Path:
        path = path_of(self.name)
        header = {"records": self.records, "migrations": self.migrations, "versions": self.versions}
        with path.open("xb") as file:
            file.writelines(orjson.dumps(line, default=tuple) + b"\n" for line in (header, *self.lines))
        return path

    async def load(self, stores: Stores) -> None:
        """Into stores that hold nothing, whose tables are then as the release's migrations made them."""
        prefix = stores.settings.prefix
        documents = []
        await _migrate(stores, self.migrations)
        for kind, name, *content in self.lines:
            match kind:
                case "table":
                    await stores.pool.execute(content[0])
                case "row":
                    insert = f"insert into {name} select * from jsonb_populate_record(null::{name}, $1::text::jsonb)"
                    await stores.pool.execute(insert, orjson.dumps(content[0]).decode())
                case "key":
                    await _put(stores.redis, prefix + name, *content)
                case "index":
                    await stores.elasticsearch.indices.create(index=prefix + name, **content[0])
                case "document":
                    version = {"version": content[1], "version_type": "external_gte"}
                    documents.append({"_index": prefix + name, "_id": content[0], "_source": content[2], **version})
                case _:
                    raise ValueError(f"{self.name}: {kind} is neither a table nor a row, key, index or document")
        await async_bulk(stores.elasticsearch, documents, refresh=True)


def path_of(name: str) -> Path:
    return STATES / f"{name}.jsonl"


def log_of(records: Iterable[GoldenRecord]) -> dict[Partition, PartitionInMemory]:
    """As it lies in memory, the partitions without a record among it."""
    found: dict[Partition, list[GoldenRecord]] = {
        Partition(topic, number): [] for topic, spec in streams().topics.items() for number in range(spec.partitions)
    }
    for record in records:
        found[Partition(record.topic, record.partition)].append(record)
    return {partition: PartitionInMemory(partition, of_it) for partition, of_it in found.items()}


def half_of(log: Log, records: list[GoldenRecord]) -> tuple[dict[Partition, int], datetime]:
    """Where the first half of the golden log ends: in each partition, and by the clock."""
    kept = records[: len(records) // 2]
    ends = dict.fromkeys(log, 0) | {Partition(r.topic, r.partition): r.offset + 1 for r in kept}
    return ends, datetime.fromtimestamp(kept[-1].timestamp / 1_000, UTC)


async def made_here(name: str, settings: Settings) -> GoldenState:
    """By this code, into stores that hold nothing."""
    await provision_tables(settings)
    records = golden_log()
    log = log_of(records)
    ends, as_of = half_of(log, records)
    async with open_stores(settings, "UTC") as stores:
        await register_declared(stores.pool, streams())
        await Replay(stores, log, WAY, all_declared(), ends=ends, as_of=as_of).fold()
        return await read_state(name, len(records) // 2, stores, all_declared())


async def read_state(
    name: str, records: int, stores: Stores, versions: list[Version], tables: Path = TABLES
) -> GoldenState:
    """Everything that lies under the prefix of `stores`."""
    lines = [["table", "", sql] for sql in _tables(versions, tables)]
    for read in (_rows(stores), _keys(stores), _indices(stores)):
        lines += [line async for line in read]
    applied = await stores.pool.fetch("select version from schema_migrations order by 1")
    migrations = [path.name for row in applied for path in MIGRATIONS.glob(f"{row['version']}_*.sql")]
    made = {version.projection: Made(version.number, version.fold, version.shards) for version in versions}
    return GoldenState(name, records, migrations, made, lines)


def _tables(versions: Iterable[Version], folder: Path) -> Iterator[str]:
    """How the sinks made their tables."""
    for version in versions:
        if (path := folder / f"{version.projection}.sql").exists():
            yield path.read_text().replace("{version}", str(version.number))


async def _rows(stores: Stores) -> AsyncIterator[list[Any]]:
    tables = await stores.pool.fetch(
        "select tablename from pg_tables where schemaname = current_schema() and tablename <> 'schema_migrations' order by 1"
    )
    for (table,) in tables:
        for (row,) in await stores.pool.fetch(f"select to_jsonb(t)::text from {table} t order by 1"):
            yield ["row", table, orjson.loads(row)]


async def _keys(stores: Stores) -> AsyncIterator[list[Any]]:
    redis, prefix = stores.redis, stores.settings.prefix
    for key in sorted([key async for key in redis.scan_iter(match=f"{prefix}{{*")]):
        kind = (await redis.type(key)).decode()
        yield ["key", key.decode().removeprefix(prefix), kind, _text(await _value(redis, key, kind))]


async def _value(redis: Redis, key: bytes, kind: str) -> Any:
    match kind:
        case "hash":
            return await redis.hgetall(key)
        case "zset":
            return dict(await redis.zrange(key, 0, -1, withscores=True))
        case "set":
            return sorted(await redis.smembers(key))
        case "list":
            return await redis.lrange(key, 0, -1)
        case _:
            return await redis.get(key)


async def _put(redis: Redis, key: str, kind: str, value: Any) -> None:
    value = _bytes(value)
    match kind:
        case "hash":
            await redis.hset(key, mapping=value)
        case "zset":
            await redis.zadd(key, value)
        case "set":
            await redis.sadd(key, *value)
        case "list":
            await redis.rpush(key, *value)
        case _:
            await redis.set(key, value)


def _text(value: Any) -> Any:
    """JSON holds text: a character for each byte."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Mapping):
        return {_text(name): _text(one) for name, one in sorted(value.items())}
    return [_text(one) for one in value] if isinstance(value, list) else value


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, Mapping):
        return {_bytes(name): _bytes(one) for name, one in value.items()}
    return [_bytes(one) for one in value] if isinstance(value, list) else value


async def _indices(stores: Stores) -> AsyncIterator[list[Any]]:
    client, prefix = stores.elasticsearch, stores.settings.prefix
    found = await client.indices.get(index=f"{prefix}*")
    await client.indices.refresh(index=f"{prefix}*")
    for name, index in sorted(found.items()):
        settings = {n: v for n, v in index["settings"]["index"].items() if n not in OF_THE_INDEX_ALONE}
        short = name.removeprefix(prefix)
        yield ["index", short, {"settings": {"index": settings}, "mappings": index["mappings"]}]
        hits = (await client.search(index=name, size=10_000, version=True))["hits"]["hits"]
        for hit in sorted(hits, key=lambda hit: str(hit["_id"])):
            yield ["document", short, hit["_id"], hit["_version"], hit["_source"]]


async def _migrate(stores: Stores, names: Iterable[str]) -> None:
    """As dbmate does, and as far as it had."""
    schema = stores.settings.postgres_schema
    await stores.pool.execute(f'create schema "{schema}"')
    await stores.pool.execute("create table schema_migrations (version varchar(128) primary key)")
    for name in names:
        up = (MIGRATIONS / name).read_text().partition("-- migrate:up")[2].partition("-- migrate:down")[0]
        await stores.pool.execute(up)
        await stores.pool.execute("insert into schema_migrations values ($1)", name.partition("_")[0])


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or "/" in arguments[0]:
        print("python -m tests.golden_states NAME, such as 3-accounts", file=sys.stderr)
        return 2
    if path_of(arguments[0]).exists():
        print(f"{path_of(arguments[0])} is what another release left: it is never written again", file=sys.stderr)
        return 1
    servers = Servers(os.environ.get("ET_SERVERS", "local"))
    try:
        servers.need({"postgres", "redis", "elasticsearch"})
        state = asyncio.run(made_here(arguments[0], servers.settings(servers.prefix)))
    finally:
        servers.close(keep_logs=False)
    print(f"wrote {state.write()}: what is made of {state.records} records, in {len(state.lines)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
