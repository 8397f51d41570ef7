create table if not exists positions_v{version} (
    viewer_id text,
    video_id text,
    session_id text,
    position_seconds double precision,
    duration_seconds double precision,
    completed boolean,
    updated_at timestamptz,
    moved_at timestamptz,
    primary key (viewer_id, video_id, session_id)
);
create index if not exists positions_v{version}_newest on positions_v{version} (viewer_id, updated_at desc);
create table if not exists positions_forgotten_v{version} (
    viewer_id text collate "C" primary key,
    blank text[] not null
);
