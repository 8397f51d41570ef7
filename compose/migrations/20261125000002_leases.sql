-- migrate:up
-- Who transcodes a film just now. `claim` grows with every claim: what an overtaken worker still writes carries an
-- older one and is refused. A lease past `expires_at` may be claimed by anyone.
create table leases (
    video_id text primary key,
    claim bigint not null,
    worker text not null,
    expires_at timestamptz not null,
    attempts integer not null,
    finished_at timestamptz
);

-- migrate:down
drop table leases;
