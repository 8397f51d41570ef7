-- Half of each page is free: a film's views of this hour are added to again and again, and a row that stays in its page touches no index.
create table if not exists hourly_v{version} (
    video_id text,
    start timestamptz,
    views bigint not null default 0,
    primary key (video_id, start)
) with (fillfactor = 50);
create index if not exists hourly_v{version}_start on hourly_v{version} (start);
create table if not exists daily_v{version} (
    video_id text,
    start timestamptz,
    views bigint not null default 0,
    primary key (video_id, start)
) with (fillfactor = 50);
create index if not exists daily_v{version}_start on daily_v{version} (start);
