-- migrate:up
-- Who is told of events by HTTP. `types` is null for all of them. One worker at a time delivers to a subscription: the one whose
-- `claim` it is, until `expires_at`; whatever changes a subscription takes the next number, so that nobody goes on with an older one.
create table webhooks (
    id text primary key,
    url text not null,
    types text[],
    description text,
    secret text not null,
    state text not null default 'active' check (state in ('active', 'paused', 'disabled')),
    why text,
    created_at timestamptz not null default now(),
    claim bigint not null default 0,
    worker text,
    expires_at timestamptz
);

-- Where each subscription stands. `next_offset` is the first not yet delivered; a partition without a row is at 0.
create table webhook_cursors (
    webhook_id text not null references webhooks on delete cascade,
    topic text not null,
    partition integer not null,
    next_offset bigint not null check (next_offset >= 0),
    attempts integer not null default 0,
    failing_since timestamptz,
    not_before timestamptz,
    primary key (webhook_id, topic, partition)
);

-- The last attempts of each subscription, for who looks into what went wrong: the event by its id, never what it holds.
create table webhook_attempts (
    number bigint generated always as identity primary key,
    webhook_id text not null references webhooks on delete cascade,
    event_id text not null,
    event_type text not null,
    topic text not null,
    partition integer not null,
    log_offset bigint not null,
    attempt integer not null,
    attempted_at timestamptz not null,
    took_ms double precision not null,
    status integer,
    error text
);
create index webhook_attempts_newest on webhook_attempts (webhook_id, number desc);

-- migrate:down
drop table webhook_attempts;
drop table webhook_cursors;
drop table webhooks;
