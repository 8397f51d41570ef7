-- migrate:up
-- Records that a projection could not fold, whole, with the place they lie at and the reason. Parking one again changes nothing.
create table parked (
    projection text not null,
    version integer not null,
    topic text not null,
    partition integer not null,
    log_offset bigint not null,
    recorded_at timestamptz not null,
    key bytea,
    value bytea,
    headers jsonb not null,
    reason text not null,
    detail text not null,
    parked_at timestamptz not null default now(),
    primary key (projection, version, topic, partition, log_offset)
);

-- migrate:down
drop table parked;
