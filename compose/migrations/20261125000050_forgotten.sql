-- migrate:up
-- Who was forgotten: the pseudonyms whose row in `viewers` is gone. Each row that goes is told to the gateways, which keep
-- pseudonyms at hand.
create table forgotten (
    viewer_id text primary key,
    forgotten_at timestamptz not null default now()
);

create function tell_viewers() returns trigger language plpgsql as $$
begin
    perform pg_notify(tg_table_schema || '_viewers', old.viewer_key);
    return null;
end $$;
create trigger viewers_told after delete on viewers for each row execute function tell_viewers();

-- migrate:down
drop trigger viewers_told on viewers;
drop function tell_viewers;
drop table forgotten;
