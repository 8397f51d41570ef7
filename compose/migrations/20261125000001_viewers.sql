-- migrate:up
-- Who is behind a pseudonym. The log and every projection hold the pseudonym alone: with its row, what is left in the
-- log points to nobody. `viewer_key` is what the gateway knows a viewer by.
create table viewers (
    viewer_key text primary key,
    pseudonym text not null unique,
    created_at timestamptz not null default now()
);

-- migrate:down
drop table viewers;
