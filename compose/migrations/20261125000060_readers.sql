-- migrate:up
-- Who reads each partition of each version of a projection, and why one stands still: written by the workers every few
-- seconds, for who asks about the lag. A row that is not fresh says nothing.
create table readers (
    projection text not null,
    version integer not null,
    topic text not null,
    partition integer not null,
    worker text not null,
    why text,
    seen_at timestamptz not null,
    primary key (projection, version, topic, partition)
);

-- migrate:down
drop table readers;
