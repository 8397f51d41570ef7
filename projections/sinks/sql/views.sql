create table if not exists views_v{version} (
    log_partition integer,
    log_offset bigint,
    view_id text not null,
    video_id text not null,
    viewer_id text collate "C",
    session_id text,
    watched_seconds double precision,
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    primary key (log_partition, log_offset)
);
create index if not exists views_v{version}_of_video on views_v{version} (video_id, occurred_at);
create index if not exists views_v{version}_newest on views_v{version} using brin (occurred_at);
create index if not exists views_v{version}_recorded on views_v{version} using brin (recorded_at);
create index if not exists views_v{version}_of_viewer on views_v{version} (viewer_id) where viewer_id is not null;
create table if not exists views_forgotten_v{version} (
    viewer_id text collate "C" primary key,
    blank text[] not null
);
create table if not exists refused_views_v{version} (
    log_partition integer,
    log_offset bigint,
    view_id text not null,
    video_id text not null,
    reason text not null,
    earlier_offset bigint,
    ahead_seconds double precision,
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    primary key (log_partition, log_offset)
);
create index if not exists refused_views_v{version}_of_video on refused_views_v{version} (video_id, occurred_at);
