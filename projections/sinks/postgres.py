"""The sink in Postgres: a transaction for whatever waits to be written, the checkpoints first."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import structlog

from projections.changes import Append, Change, Forget, Increment, Upsert
from projections.projection import Projection
from projections.sinks.postgres_forgetting import Forgotten
from projections.sinks.rows import Shape, Statement, statements
from projections.sinks.sink import ChangeRefused, Checkpoint, CheckpointMoved, LogIdentity, Step, StoreUnavailable
from projections.sinks.together import Batch, Together, joined
from schemas.log import Place

TABLES = Path(__file__).parent / "sql"
FORGOTTEN = "_forgotten"
APPLY_SECONDS = 30.0
WORTH_COPYING = 200  # rows; a COPY and its savepoint are five round trips
WORTH_STAGING = 2_000  # rows; a table for them is made and dropped
MOST_RECORDS = 2_000  # of several partitions in a transaction
MOST_OF_LONG_ONES = 500_000  # records, as well
LONG_SIDE_BY_SIDE = 2  # transactions: while the server writes one, another is sent
FROZEN_SECONDS = 10.0  # a worker that says nothing for as long, in the middle of a batch, holds its heir up no longer

# Heard by who waits for a write: "statistics_v1 views 3 41207", a line a checkpoint, as in Redis, once the transaction is committed.
MOVE_CHECKPOINTS = """
with moved as (
    update checkpoints as c set next_offset = to_be.next_offset, updated_at = now(), step = to_be.step
    from unnest($3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::text[])
        as to_be(topic, partition, expected, next_offset, step)
    where c.projection = $1 and c.version = $2
        and c.topic = to_be.topic and c.partition = to_be.partition and c.next_offset = to_be.expected
    returning concat($1::text, '_v', $2::int, ' ', c.topic, ' ', c.partition, ' ', c.next_offset) as told
)
select count(*), pg_notify(current_schema() || '_checkpoints', string_agg(told, chr(10))) from moved
"""
# A worker frozen in the middle of its batch keeps its row locks for ever, and only who waits for them sees that somebody does.
# The server's idle_in_transaction_session_timeout does not do: asyncpg asks for a statement's plan with a Flush, after which a
# transaction counts as active until the next message, which a frozen worker never sends.
END_SILENT_HOLDERS = """
select pg_terminate_backend(a.pid)
from checkpoints c
join pg_locks l on l.locktype = 'transactionid' and l.granted and l.transactionid = c.xmax
join pg_stat_activity a on a.pid = l.pid
where c.projection = $1 and c.version = $2
  and a.wait_event = 'ClientRead' and a.state_change < clock_timestamp() - $3 * interval '1 second'
"""
BEGIN_CHECKPOINT = """
insert into checkpoints (projection, version, topic, partition, next_offset, cluster_id, topic_id, partitions)
values ($1, $2, $3, $4, 0, $5, $6, $7) on conflict do nothing
"""
READ_CHECKPOINT = """
select next_offset, cluster_id, topic_id, partitions from checkpoints
where projection = $1 and version = $2 and topic = $3 and partition = $4
"""
NEWEST_STEP = """
select next_offset, step from checkpoints where projection = $1 and version = $2 and topic = $3 and partition = $4
"""
ALL_THERE = "select bool_and(to_regclass(name) is not null) from unnest($1::text[]) as name"
COLUMN_TYPES = """
select c.relname as table_name, a.attname as column_name, format_type(a.atttypid, a.atttypmod) as type
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
"""
MAY_STAGE = "select has_database_privilege(current_database(), 'temporary')"

logger = structlog.get_logger(__name__)

PASSING = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,  # the server's farewell lies unread when we ask again
)


@contextmanager
def reaching_postgres() -> Iterator[None]:
    """Raises StoreUnavailable for whatever may pass by waiting; other errors of the server go through."""
    try:
        yield
    except PASSING as error:
        raise StoreUnavailable("postgres", str(error) or type(error).__name__) from error
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError) as error:
        raise StoreUnavailable("postgres", f"{error}: provisioning or a worker makes it") from error
    except asyncpg.InterfaceError as error:
        # A client-side DataError is a bad value; every other one says that the connection is closed or lost.
        if isinstance(error, asyncpg.DataError | ValueError):
            raise
        raise StoreUnavailable("postgres", str(error)) from error


class PostgresSink:
    """A projection's tables in Postgres: `{table}_v{version}`, in the schema that the pool's connections look in.

    A worker that has said nothing for `frozen_seconds` in the middle of a batch loses it to whoever waits for its rows.
    """

    needs_offsets = False

    def __init__(self, pool: Any, projection: Projection, *, frozen_seconds: float = FROZEN_SECONDS) -> None:
        self._pool = pool
        self._projection = projection
        self._frozen_seconds = frozen_seconds
        self._types: Mapping[tuple[str, str], str] = {}
        self._may_stage = False
        self._forgotten: Mapping[str, Forgotten] = {}
        self._together = Together(self._apply, MOST_RECORDS)
        self._long_ones = Together(self._apply, MOST_OF_LONG_ONES, side_by_side=LONG_SIDE_BY_SIDE)

    async def prepare(self) -> None:
        sql = (TABLES / f"{self._projection.name}.sql").read_text().replace("{version}", str(self._projection.version))
        made = re.findall(r"create (?:table|index) if not exists (\w+)", sql)
        with reaching_postgres():
            # Even an index that is there already waits for whoever writes to its table.
            if not await self._pool.fetchval(ALL_THERE, made):
                async with self._transaction() as connection:
                    # Two workers that start together: `create if not exists` alone would let one of them fail.
                    await connection.execute(
                        "select pg_advisory_xact_lock(hashtextextended(current_schema() || $1, 0))",
                        self._projection.name,
                    )
                    await connection.execute(sql)
            await self._learn_types()

    async def checkpoint(self, topic: str, partition: int, log: LogIdentity) -> Checkpoint:
        key = (self._projection.name, self._projection.version, topic, partition)
        with reaching_postgres():
            # Read before it is begun: even an insert that would do nothing waits for whoever is moving the row.
            row = await self._pool.fetchrow(READ_CHECKPOINT, *key)
            if row is None:
                await self._pool.execute(BEGIN_CHECKPOINT, *key, *log)
                row = await self._pool.fetchrow(READ_CHECKPOINT, *key)
        next_offset, *identity = row
        return Checkpoint(Place(topic, partition, next_offset), LogIdentity(*identity))

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        """In one transaction of any size, with the batches of other partitions that have come meanwhile, a short one with short ones."""
        batch = Batch(changes, expected, next_offset, step)
        together = self._long_ones if batch.reach > self._together.most_records else self._together
        await together.join(batch)

    async def _apply(self, batches: Sequence[Batch]) -> None:
        """All of them or none."""
        changes = joined([batch.changes for batch in batches])
        with self._refusing(changes), reaching_postgres():
            if not self._types:
                await self._learn_types()
            # Made before the transaction begins: who holds a lock does not think.
            writes = [self._write(statement) for statement in statements(changes)]
            name, version = self._projection.name, self._projection.version
            moves = sorted((*batch.expected, batch.next_offset, batch.step) for batch in batches)
            async with self._transaction() as connection:
                # The checkpoints first: their row locks turn a stale worker away before it writes.
                columns = map(list, zip(*moves, strict=True))
                moved = await connection.fetchval(MOVE_CHECKPOINTS, name, version, *columns, timeout=APPLY_SECONDS)
                if moved < len(moves):
                    raise CheckpointMoved(name, batches[0].expected)
                for write in writes:
                    await write(connection)

    def condensed(self, changes: Sequence[Change]) -> Sequence[Change]:
        return changes

    async def newest_step(self, topic: str, partition: int) -> Step:
        name, version = self._projection.name, self._projection.version
        with reaching_postgres():
            row = await self._pool.fetchrow(NEWEST_STEP, name, version, topic, partition)
        return Step(*row) if row else Step(0, None)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        """A connection in a transaction. Who waits for a lock in vain ends the batches of workers that say nothing: the next try finds it
        free."""
        name, version = self._projection.name, self._projection.version
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(f"set local lock_timeout = {round(self._frozen_seconds * 1_000)}")
                yield connection
        except asyncpg.LockNotAvailableError:
            if ended := await self._pool.fetch(END_SILENT_HOLDERS, name, version, self._frozen_seconds):
                logger.warning("ended the batches of a worker that says nothing", projection=name, batches=len(ended))
            raise

    async def tick(self, now: datetime) -> None:
        """Nothing rolls by itself here."""

    async def drop(self) -> None:
        name, version = self._projection.name, self._projection.version
        with reaching_postgres():
            async with self._transaction() as connection:
                await connection.execute(
                    "delete from checkpoints where projection = $1 and version = $2", name, version
                )
                for table in tables_of(name):
                    await connection.execute(f"drop table if exists {table}_v{version}")

    async def _learn_types(self) -> None:
        self._may_stage = await self._pool.fetchval(MAY_STAGE)
        rows = await self._pool.fetch(COLUMN_TYPES)
        self._types = {(row["table_name"], row["column_name"]): row["type"] for row in rows}
        suffix = f"_v{self._projection.version}"
        self._forgotten = {
            table: Forgotten(name, table + suffix, column)
            for name, column in self._types
            if column != "blank" and name.endswith(FORGOTTEN + suffix)
            for table in [name.removesuffix(FORGOTTEN + suffix)]
        }

    def _write(self, statement: Statement) -> Callable[[Any], Awaitable[None]]:
        """What writes the statement's rows over a connection."""
        if forgotten := self._forgotten.get(statement.shape.table):
            return lambda connection: self._write_living(connection, statement, forgotten)
        if statement.shape.kind is Append:
            return lambda connection: self._append(connection, statement)
        return self._at_once(statement)

    async def _write_living(self, connection: Any, statement: Statement, forgotten: Forgotten) -> None:
        """Of a table that forgets."""
        if statement.shape.kind is Forget:
            await forgotten.add(connection, statement, seconds=APPLY_SECONDS)
            return
        living = await forgotten.without(connection, statement, seconds=APPLY_SECONDS)
        if not living.rows:
            return
        if living.shape.kind is Append:
            await self._append(connection, living)
        else:
            await self._at_once(living)(connection)

    async def _append(self, connection: Any, statement: Statement) -> None:
        """Many by COPY. Rows that are there already, as after somebody meddled with the checkpoints, are written over one by one."""
        shape, rows = statement
        upserting = statement._replace(shape=shape._replace(kind=Upsert))
        if len(rows) < WORTH_COPYING:
            await self._at_once(upserting)(connection)
            return
        try:
            async with connection.transaction():
                await self._copy(connection, self._table(shape), statement)
        except asyncpg.UniqueViolationError:
            await self._at_once(upserting)(connection)

    def _at_once(self, statement: Statement) -> Callable[[Any], Awaitable[None]]:
        """What executes it over a connection: from arrays, or where there are many rows from a table that they are copied to first."""
        shape, rows = statement
        types = self._types_of(shape)
        if self._may_stage and len(rows) >= WORTH_STAGING and "jsonb" not in types:
            return lambda connection: self._from_staged(connection, statement)
        sql, arrays = _statement(shape, self._table(shape), types), _arrays(rows, types)

        async def execute(connection: Any) -> None:
            await connection.execute(sql, *arrays, timeout=APPLY_SECONDS)

        return execute

    async def _from_staged(self, connection: Any, statement: Statement) -> None:
        shape = statement.shape
        table = self._table(shape)
        staged = f"staged_{table}"
        await connection.execute(
            f"create temporary table {staged} as select {_quoted(_names(shape))} from {table} with no data",
            timeout=APPLY_SECONDS,
        )
        await self._copy(connection, staged, statement)
        await connection.execute(_statement(shape, table, self._types_of(shape), staged), timeout=APPLY_SECONDS)
        await connection.execute(f"drop table {staged}", timeout=APPLY_SECONDS)

    async def _copy(self, connection: Any, table: str, statement: Statement) -> None:
        shape, rows = statement
        try:
            await connection.copy_records_to_table(table, records=rows, columns=_names(shape), timeout=APPLY_SECONDS)
        except (TypeError, OverflowError) as error:
            # Of a value that is no such thing; of an array it would be a DataError.
            raise ValueError(str(error)) from error

    def _table(self, shape: Shape) -> str:
        return f"{shape.table}_v{self._projection.version}"

    def _types_of(self, shape: Shape) -> tuple[str, ...]:
        table = self._table(shape)
        return tuple(self._types[table, name] for name in _names(shape))

    @contextmanager
    def _refusing(self, changes: Sequence[Change]) -> Iterator[None]:
        try:
            yield
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError) as error:
            raise ChangeRefused(self._projection.name, changes, str(error)) from error


def tables_of(projection: str) -> list[str]:
    """The tables that a projection's SQL creates, without their version."""
    return re.findall(r"create table if not exists (\w+)_v{version}", (TABLES / f"{projection}.sql").read_text())


def _names(shape: Shape) -> tuple[str, ...]:
    return *shape.key_columns, *shape.columns


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _arrays(rows: Sequence[tuple[Any, ...]], types: Sequence[str]) -> list[list[Any]]:
    """The rows as one array a column; JSON goes as text, since asyncpg takes a list in an array for one more dimension."""
    return [
        [None if value is None else orjson.dumps(value).decode() for value in column] if type_ == "jsonb" else [*column]
        for type_, column in zip(types, zip(*rows, strict=True), strict=True)
    ]


@cache
def _statement(shape: Shape, table: str, types: tuple[str, ...], staged: str | None = None) -> str:
    """Its rows come from the table `staged`, or from a parameter a column, of these types."""
    names, keys = _names(shape), _quoted(shape.key_columns)
    quoted = _quoted(names)
    if staged:
        row = f"{staged} as r"
    else:
        arrays = ", ".join(f"${i}::{'text' if type_ == 'jsonb' else type_}[]" for i, type_ in enumerate(types, start=1))
        row = f"unnest({arrays}) as r({quoted})"
    if shape.kind is Increment:
        counter = f'"{shape.columns[0]}"'
        insert = f"insert into {table} as t ({quoted}) select * from {row}"
        return f"{insert} on conflict ({keys}) do update set {counter} = t.{counter} + excluded.{counter}"
    if shape.kind is Upsert:
        selected = ", ".join(
            f'r."{name}"::jsonb' if type_ == "jsonb" else f'r."{name}"'
            for name, type_ in zip(names, types, strict=True)
        )
        insert = f"insert into {table} as t ({quoted}) select {selected} from {row} on conflict ({keys}) do"
        if not shape.columns:
            return f"{insert} nothing"
        if shape.newest_by is None:
            updates = ", ".join(f'"{name}" = excluded."{name}"' for name in shape.columns)
            return f"{insert} update set {updates}"
        newest = f't."{shape.newest_by}" is null or t."{shape.newest_by}" <= excluded."{shape.newest_by}"'
        if shape.greatest is None:
            updates = ", ".join(f'"{name}" = excluded."{name}"' for name in shape.columns)
            return f"{insert} update set {updates} where {newest}"
        updates = ", ".join(
            f'"{name}" = case when {newest} then excluded."{name}" else t."{name}" end'
            for name in shape.columns
            if name != shape.greatest
        )
        # Of a null and a moment, greatest() gives the moment.
        greatest = f'"{shape.greatest}" = greatest(t."{shape.greatest}", excluded."{shape.greatest}")'
        return f"{insert} update set {updates}, {greatest}"
    matching = " and ".join(f't."{name}" = r."{name}"' for name in shape.key_columns)
    return f"delete from {table} as t using {row} where {matching}"
