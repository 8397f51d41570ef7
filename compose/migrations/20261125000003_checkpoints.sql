-- migrate:up
-- How far each projection in Postgres has folded each partition, and of which log: it moves in the transaction that
-- writes what was folded. `next_offset` is the first not yet applied.
create table checkpoints (
    projection text not null,
    version integer not null,
    topic text not null,
    partition integer not null,
    next_offset bigint not null check (next_offset >= 0),
    cluster_id text not null,
    topic_id text not null,
    partitions integer not null,
    updated_at timestamptz not null default now(),
    primary key (projection, version, topic, partition)
);

-- migrate:down
drop table checkpoints;
