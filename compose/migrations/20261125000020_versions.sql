-- migrate:up
-- The states that each projection has: `version` names its tables, keys and index, `fold` is the number of the fold that
-- makes it. The active one answers; `previous` answered before it. `rule` is null but for what-if. Each change is told.
create table versions (
    projection text not null,
    version integer not null check (version > 0),
    fold integer not null check (fold > 0),
    shards integer not null check (shards > 0),
    state text not null check (state in ('building', 'ready', 'active', 'retired')),
    rule jsonb,
    previous integer,
    is_paused boolean not null default false,
    created_at timestamptz not null default now(),
    changed_at timestamptz not null default now(),
    primary key (projection, version)
);
create unique index versions_active on versions (projection) where state = 'active';
create unique index versions_building on versions (projection) where state = 'building';

create function tell_versions() returns trigger language plpgsql as $$
begin
    perform pg_notify(tg_table_schema || '_versions', '');
    return null;
end $$;
create trigger versions_told after insert or update or delete on versions for each statement execute function tell_versions();

-- migrate:down
drop table versions;
drop function tell_versions;
