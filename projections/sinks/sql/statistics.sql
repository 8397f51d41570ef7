create table if not exists hourly_v{version} (
    video_id text,
    start timestamptz,
    views bigint not null default 0,
    primary key (video_id, start)
);
create index if not exists hourly_v{version}_start on hourly_v{version} (start);
create table if not exists daily_v{version} (
    video_id text,
    start timestamptz,
    views bigint not null default 0,
    primary key (video_id, start)
);
create index if not exists daily_v{version}_start on daily_v{version} (start);
