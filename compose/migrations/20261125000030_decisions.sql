-- migrate:up
-- What became of a parked record: null while nobody has decided, then `folded`, `duplicate`, `future` or `discarded`, by the
-- decision at the offset `decided_by`. `waits_for` is the offset of an earlier record of the same key that has to be decided first.
alter table parked
    add column waits_for bigint,
    add column outcome text,
    add column decided_by bigint;
create index parked_undecided on parked (projection, version, topic, partition, log_offset) where outcome is null;

-- A step of a projection that parks or decides is written down here before it is taken. Its name moves with the checkpoint, in
-- the store that the projection is folded into: so what was written down is carried out if the step was taken, and only then.
alter table checkpoints add column step text;
create table parking_steps (
    step text not null,
    moves_topic text not null,
    moves_partition integer not null,
    from_offset bigint not null,
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
    waits_for bigint,
    outcome text,
    decided_by bigint,
    primary key (step, topic, partition, log_offset)
);
create index parking_steps_of_partition on parking_steps (projection, version, topic, partition);

-- migrate:down
drop table parking_steps;
alter table checkpoints drop column step;
drop index parked_undecided;
alter table parked drop column waits_for, drop column outcome, drop column decided_by;
