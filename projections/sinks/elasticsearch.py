"""The sink in Elasticsearch: whole documents, versioned by offset, the checkpoint last."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from elastic_transport import ConnectionError as NoConnection
from elastic_transport import TransportError
from elasticsearch import ApiError, AsyncElasticsearch, BadRequestError, ConflictError, NotFoundError

from projections.changes import Change, Upsert
from projections.projection import Projection
from projections.sinks.sink import ChangeRefused, Checkpoint, CheckpointMoved, LogIdentity, Step, StoreUnavailable
from projections.spelling import folded
from schemas.log import Place
from schemas.streams import DECISIONS

MAPPINGS = Path(__file__).parent / "mappings"
FOLDED_TEXTS = ("title", "description", "show_title")
PASSING_STATUSES = {408, 409, 429, 500, 502, 503, 504}
FENCED = 409


@contextmanager
def reaching_elasticsearch() -> Iterator[None]:
    """Raises StoreUnavailable for whatever may pass by waiting; other errors of the server go through."""
    try:
        yield
    except (TransportError, OSError) as error:
        raise StoreUnavailable(
            "elasticsearch", str(error) if not isinstance(error, NoConnection) else "no connection"
        ) from error
    except NotFoundError as error:
        raise StoreUnavailable("elasticsearch", f"{error.message}: provisioning or a worker makes the index") from error
    except ApiError as error:
        if error.meta.status in PASSING_STATUSES:
            raise StoreUnavailable("elasticsearch", error.message) from error
        raise


def index_name(prefix: str, projection: str, version: int) -> str:
    """The index of one version of a projection."""
    return f"{prefix}{projection}.v{version}"


class ElasticsearchSink:
    """A projection's documents in one index, and its checkpoints in a second, `….checkpoints`.

    There is no transaction over two documents, so a batch may be written and its checkpoint not. Then it is folded again, and since every
    document carries the offset it was written at as its version, one that is as new as the batch is left alone. That is exact for upserts,
    which are the same twice; counters are not, and are refused.

    An emptied Elasticsearch is folded from the start again. Where only a part is lost, the partition waits until someone mends it.
    """

    needs_offsets = False

    def __init__(self, client: AsyncElasticsearch, projection: Projection, prefix: str) -> None:
        self._client = client
        self._projection = projection
        self._index = index_name(prefix, projection.name, projection.version)
        self._checkpoints = f"{self._index}.checkpoints"

    async def prepare(self) -> None:
        body = orjson.loads((MAPPINGS / f"{self._projection.name}.json").read_bytes())
        checkpoints = {"settings": {"number_of_shards": 1}, "mappings": {"dynamic": False}}
        for index, content in ((self._index, body), (self._checkpoints, checkpoints)):
            with reaching_elasticsearch():
                if await self._client.indices.exists(index=index):
                    continue
                try:
                    await self._client.indices.create(index=index, **content, wait_for_active_shards=1)
                except BadRequestError as error:
                    if error.error != "resource_already_exists_exception":
                        raise

    async def checkpoint(self, topic: str, partition: int, log: LogIdentity) -> Checkpoint:
        # Elasticsearch would make a missing index by itself, with a mapping of its own guess.
        await self.prepare()
        name = f"{topic}.{partition}"
        with reaching_elasticsearch():
            with suppress(ConflictError):
                await self._client.create(index=self._checkpoints, id=name, document=_written(0, log))
            found = await self._client.get(index=self._checkpoints, id=name)
        source = found["_source"]
        identity = LogIdentity(source["cluster_id"], source["topic_id"], source["partitions"])
        return Checkpoint(Place(topic, partition, source["next_offset"]), identity)

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        expected: Place,
        next_offset: int,
        offsets: Sequence[int] | None = None,
        step: str | None = None,
    ) -> None:
        """Merge `changes` into their documents, write those whole, then move the checkpoint."""
        name = f"{expected.topic}.{expected.partition}"
        with reaching_elasticsearch():
            current = await self._client.options(ignore_status=404).get(index=self._checkpoints, id=name)
            source = current.get("_source", {})
            if source.get("next_offset") != expected.offset:
                raise CheckpointMoved(self._projection.name, expected)
            if changes:
                await self._write(changes, None if expected.topic == DECISIONS else next_offset)
            try:
                await self._client.index(
                    index=self._checkpoints,
                    id=name,
                    document=source | {"next_offset": next_offset, "step": step},
                    if_seq_no=current["_seq_no"],
                    if_primary_term=current["_primary_term"],
                )
            except ConflictError:
                raise CheckpointMoved(self._projection.name, expected) from None

    def condensed(self, changes: Sequence[Change]) -> Sequence[Change]:
        return changes

    async def newest_step(self, topic: str, partition: int) -> Step:
        with reaching_elasticsearch():
            found = await self._client.options(ignore_status=404).get(
                index=self._checkpoints, id=f"{topic}.{partition}"
            )
        source = found.get("_source", {})
        return Step(source.get("next_offset", 0), source.get("step"))

    async def tick(self, now: datetime) -> None:
        """Nothing rolls by itself here."""

    async def drop(self) -> None:
        with reaching_elasticsearch():
            await self._client.options(ignore_status=404).indices.delete(index=[self._index, self._checkpoints])

    async def _write(self, changes: Sequence[Change], version: int | None) -> None:
        """Without a version, as a decision is written whose offsets are of another topic, each document keeps the one that it has: nobody
        else writes to it meanwhile, since everything else of its film waits for the decision.
        """
        by_document: dict[str, list[Upsert]] = {}
        for change in changes:
            if not isinstance(change, Upsert) or change.greatest:
                raise TypeError(
                    f"{self._projection.name}: a document can be merged only with an Upsert, not {change!r}"
                )
            by_document.setdefault(_document_id(change), []).append(change)
        found = await self._client.mget(index=self._index, ids=list(by_document))
        operations: list[Mapping[str, Any]] = []
        for document in found["docs"]:
            if "error" in document:
                # Taken for a missing document it would be written anew, without what it held.
                raise StoreUnavailable("elasticsearch", f"{document['_id']}: {document['error']}")
            written_at = document.get("_version", 0)
            if version is not None and written_at >= version:
                continue
            merged = dict(document.get("_source") or {})
            for upsert in by_document[document["_id"]]:
                _merge(merged, upsert)
            at = version if version is not None else max(1, written_at)
            action = {"_id": document["_id"], "version": at, "version_type": "external_gte"}
            operations += [{"index": action}, merged]
        if operations:
            answer = await self._client.bulk(index=self._index, operations=operations)
            self._inspect(answer["items"], by_document, fencing=version is not None)

    def _inspect(
        self, items: Sequence[Mapping[str, Any]], by_document: Mapping[str, list[Upsert]], *, fencing: bool
    ) -> None:
        """Every item's own outcome. Raises StoreUnavailable when one may pass by waiting, else ChangeRefused with those refused."""
        failed = [
            item["index"]
            for item in items
            if item["index"]["status"] >= 300 and not (fencing and item["index"]["status"] == FENCED)
        ]
        if not failed:
            return
        if passing := [item for item in failed if item["status"] in PASSING_STATUSES]:
            raise StoreUnavailable("elasticsearch", str(passing[0].get("error")))
        refused = [change for item in failed for change in by_document[item["_id"]]]
        raise ChangeRefused(self._projection.name, refused, str(failed[0].get("error")))


def _written(next_offset: int, log: LogIdentity) -> dict[str, Any]:
    return {"next_offset": next_offset, **log._asdict()}


def _document_id(change: Upsert) -> str:
    return "/".join(map(str, change.key.values()))


def _merge(document: dict[str, Any], upsert: Upsert) -> None:
    register = upsert.newest_by
    values = {name: _plain(value) for name, value in upsert.values.items()}
    if register is not None and document.get(register) is not None and document[register] > values[register]:
        return
    document |= {**upsert.key, **values}
    for name in FOLDED_TEXTS:
        if isinstance(text := values.get(name), str):
            document[f"{name}_folded"] = folded(text)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
