"""What is written into the registry of versions: one step each, refused in words where it cannot be."""

from typing import Any

from projections.queries.versions import Version, Versions
from projections.sinks.postgres import reaching_postgres
from schemas.streams import Streams

REGISTER = """
insert into versions (projection, version, fold, shards, state)
select $1::text, $2::integer, $2::integer, $3::integer, 'active' where not exists (select from versions where projection = $1)
on conflict do nothing
"""


async def register_declared(pool: Any, streams: Streams) -> None:
    """A projection that has no version yet begins with the declared one, which answers. Raises StoreUnavailable."""
    with reaching_postgres():
        await pool.executemany(
            REGISTER, [(name, spec.version, spec.shards) for name, spec in streams.projections.items()]
        )


def is_ours(version: Version, streams: Streams) -> bool:
    """Whether this release has the fold that makes this version."""
    return version.fold == streams.projections[version.projection].version


def kept_up(versions: Versions, streams: Streams) -> list[Version]:
    """What a worker of this release folds: versions that answer or could answer, made by a fold of its own."""
    return [
        version
        for name in streams.projections
        for version in versions.known(name)
        if version.state in ("active", "ready") and is_ours(version, streams)
    ]


def left_alone(versions: Versions, streams: Streams) -> list[str]:
    """A sentence for each version that another release has to fold."""
    return [
        f"{name} version {version.number} was made by fold {version.fold} and this release has fold "
        f"{streams.projections[name].version}: it is left alone; `faust -A agents rebuild {name}` and then "
        f"`faust -A agents switch {name}` bring its successor"
        for name in streams.projections
        for version in versions.known(name)
        if version.state == "active" and not is_ours(version, streams)
    ]
