create table if not exists chronicle_v{version} (
    log_partition integer,
    log_offset bigint,
    video_id text not null,
    event_type text not null,
    event_id text not null,
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    data jsonb not null,
    primary key (log_partition, log_offset)
);
create index if not exists chronicle_v{version}_of_video on chronicle_v{version} (video_id, log_offset);
create index if not exists chronicle_v{version}_of_type on chronicle_v{version} (event_type, video_id, log_offset);
