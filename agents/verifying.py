"""Two versions of a projection held at the same places of the log, and compared: what became of every record, and what they hold."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from agents.deciding import WITHOUT_EFFECT
from agents.folding import judge
from agents.handover import Partition
from agents.log_reader import log_of
from agents.reading import read_records
from agents.refolding import Refolding
from agents.registry import NotNow, Registry, is_ours
from agents.seen import seen_ids, with_retries_of
from agents.stores import Stores, folded_as, partitions_of
from agents.switching import Switching
from compose.settings import Settings
from projections.counting import Duplicate, FromTheFuture, RuledOut
from projections.projection import Refused
from projections.queries.contents import Difference, contents_of, differences
from projections.queries.rows import Row
from projections.queries.versions import Version
from projections.sinks.postgres import reaching_postgres
from schemas.columns import Events
from schemas.decoded import Decoded
from schemas.events import VideoViewed
from schemas.streams import streams

HEAR_SECONDS = 1.5  # after which every worker has heard that the versions are held
OUTCOMES = {
    "folded": "accepted",
    "duplicate": "duplicate",
    "future": "future",
    WITHOUT_EFFECT: "ignored",
}  # of a record retried, or of a retry; else it stays parked
SHOWN = 10  # differences that are kept to be shown; all are counted

Places = Mapping[Partition, int]


class Account(NamedTuple):
    """What became of the records that a version has folded; together they are all of them, or some are neither folded nor parked."""

    records: int
    accepted: int
    duplicate: int
    future: int
    ruled_out: int
    parked: int
    ignored: int
    views: int  # of those accepted
    views_held: int | None  # that the version's content adds up to, where it counts views

    @property
    def adds_up(self) -> bool:
        told = self.accepted + self.duplicate + self.future + self.ruled_out + self.parked + self.ignored
        return told == self.records and self.views_held in (None, self.views)


class Verified(NamedTuple):
    """What two versions are beside each other, at `places`."""

    active: Version
    other: Version
    places: Places
    accounts: Mapping[int, Account]
    rows: int
    different: int
    shown: list[Difference]

    @property
    def is_equal(self) -> bool:
        accounts = [account.adds_up for account in self.accounts.values()]
        return not self.different and all(accounts)


class Verifying:
    """Raises NotNow for what cannot be compared, StoreUnavailable when a server is down."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self._registry = Registry(stores.pool)
        self._switching = Switching(stores)

    async def verify(self, projection: str) -> Verified:
        """Compare the newest version that is ready with the one that answers."""
        versions = (await self._registry.versions()).known(projection)
        active = next(version for version in versions if version.state == "active")
        ready = [version for version in versions if version.state == "ready"]
        if not ready:
            raise NotNow(
                f"{projection} has no other version that is ready: `faust -A agents rebuild {projection}` builds one"
            )
        pair = active, ready[-1]
        async with self._registry.held(projection):
            await asyncio.sleep(HEAR_SECONDS)
            places = await self._at_the_same_places(*pair)
            now = datetime.now(UTC)
            for version in pair:
                await self._stores.sink(version).tick(now)
            held = {version.number: _Held(version) for version in pair}
            rows = [held[version.number].counting(self._contents(version)) for version in pair]
            parked = {version.number: await self._parked(version) for version in pair}
            if streams().projections[projection].sink == "postgres":
                # Both are read as they are now, however long that takes: nobody has to wait for it.
                rows = [await _begun(one) for one in rows]
            else:
                found = await _compared(*rows)
            for version in pair:
                if await self._switching.positions(version) != places:
                    raise NotNow(
                        f"{version.full_name} was folded on while it was compared: is a worker of another release running?"
                    )
        if streams().projections[projection].sink == "postgres":
            found = await _compared(*rows)
        accounts = {
            version.number: (await self._account(version, places, parked[version.number]))._replace(
                views_held=held[version.number].views
            )
            for version in pair
        }
        return Verified(*pair, places, accounts, max(one.rows for one in held.values()), *found)

    def _contents(self, version: Version) -> AsyncGenerator[Row, None]:
        return contents_of(
            version, self._stores.prefix, self._stores.pool, self._stores.redis, self._stores.elasticsearch
        )

    async def _at_the_same_places(self, active: Version, ready: Version) -> Places:
        """Fold on whichever is behind, in each partition; where they meet."""
        reached = [await self._switching.positions(version) for version in (active, ready)]
        meet = {partition: max(offsets[partition] for offsets in reached) for partition in reached[0]}
        for version, offsets in zip((active, ready), reached, strict=True):
            behind = {partition: end for partition, end in meet.items() if offsets[partition] < end}
            if not behind:
                continue
            if not is_ours(version, streams()):
                raise NotNow(
                    f"{version.full_name} is behind at {', '.join(map(str, behind))}, and only the release with fold "
                    f"{version.fold} can fold it on: is a worker of that release running?"
                )
            await Refolding(self._settings, self._stores, version, list(behind)).run(behind)
        return meet

    async def _parked(self, version: Version) -> dict[Partition, dict[int, str]]:
        """What became of each record that was parked: what was decided, else that it is parked."""
        with reaching_postgres():
            rows = await self._stores.pool.fetch(
                "select topic, partition, log_offset, outcome from parked where projection = $1 and version = $2",
                version.projection,
                version.number,
            )
        found: dict[Partition, dict[int, str]] = {}
        for row in rows:
            partition = Partition(row["topic"], row["partition"])
            found.setdefault(partition, {})[row["log_offset"]] = OUTCOMES.get(row["outcome"], "parked")
        return found

    async def _account(
        self, version: Version, places: Places, parked: Mapping[Partition, Mapping[int, str]]
    ) -> Account:
        """From the log itself, by this release's fold: what every record before `places` is to the version."""
        found: Counter[str] = Counter()
        projection, seen = folded_as(version), seen_ids(self._settings, streams())
        handled = {event.type for event in projection.event_types}
        for partition in partitions_of(version.projection):
            passed = parked.get(partition, {})
            async with log_of(self._settings)(partition) as log:
                at = 0
                async for records in log.read(0, places[partition]):
                    counts = streams().topics[partition.topic].partitions
                    decoded: Sequence[Decoded] = Events.of(read_records(records, partition, counts).decoded).besides(
                        passed
                    )
                    refused: Sequence[Refused] = ()
                    if projection.counts_once and streams().topics[partition.topic].once_within:
                        window = await seen.window(version.full_name, partition, at)
                        judged = with_retries_of(passed, Events.of(decoded))
                        found["ignored"] += len(decoded) - len(judged)
                        counted, refused = projection.ruled(*judge(window, judged))
                        decoded = counted
                        # Also where it ends with what was passed over, which took no id.
                        window.judged_to = max(window.judged_to, records[-1].offset + 1)
                    at = records[-1].offset + 1
                    found["records"] += len(records)
                    found.update(passed[record.offset] for record in records if record.offset in passed)
                    found["accepted"] += sum(item.event.type in handled for item in decoded)
                    found["ignored"] += sum(item.event.type not in handled for item in decoded)
                    found["views"] += sum(item.event.type == VideoViewed.type for item in decoded)
                    found["duplicate"] += sum(isinstance(item.verdict, Duplicate) for item in refused)
                    found["future"] += sum(isinstance(item.verdict, FromTheFuture) for item in refused)
                    found["ruled_out"] += sum(isinstance(item.verdict, RuledOut) for item in refused)
        if projection.counts_once:
            folded = [
                outcome for partition, told in parked.items() if partition.topic == "views" for outcome in told.values()
            ]
            found["views"] += folded.count("accepted")
        return Account(**{name: found[name] for name in Account._fields if name != "views_held"}, views_held=None)


class _Held:
    """What a version's rows add up to, as they go by."""

    def __init__(self, version: Version) -> None:
        self._projection = version.projection
        self.rows = 0
        self.views: int | None = 0 if version.projection in ("views", "statistics", "leaderboard") else None

    async def counting(self, rows: AsyncIterator[Row]) -> AsyncGenerator[Row, None]:
        async for row in rows:
            self.rows += 1
            if self.views is not None:
                self.views += views_of(self._projection, row)
            yield row


def views_of(projection: str, row: Row) -> int:
    """The views for all time that the row counts; those of all rows are the views accepted."""
    match projection, row.table, row.key:
        case "views", "views", _:
            return 1
        case ("statistics", "daily", _) | ("leaderboard", "top", ("all_time", _)):
            views: int = row.values["views"]
            return views
    return 0


async def _begun(rows: AsyncGenerator[Row, None]) -> AsyncGenerator[Row, None]:
    """The same rows, of which the first is read already: whatever is written from now on is not among them."""
    first = await anext(rows, None)

    async def all_of_them() -> AsyncGenerator[Row, None]:
        if first is not None:
            yield first
        async for row in rows:
            yield row

    return all_of_them()


async def _compared(one: AsyncIterator[Row], other: AsyncIterator[Row]) -> tuple[int, list[Difference]]:
    count, shown = 0, []
    async for difference in differences(one, other):
        count += 1
        if count <= SHOWN:
            shown.append(difference)
    return count, shown


def told(difference: Difference) -> tuple[Any, ...]:
    """Where it lies, and what each has there: only the columns that differ."""
    one, other = difference
    row = one or other
    assert row is not None
    key = "/".join(map(str, row.key))
    if one is None or other is None:
        return row.table, key, one and dict(one.values), other and dict(other.values)
    names = [name for name in {**one.values, **other.values} if one.values.get(name) != other.values.get(name)]
    return row.table, key, *({name: each.values.get(name) for name in names} for each in (one, other))
