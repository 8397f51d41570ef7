-- migrate:up
-- A film may be claimed for more than one kind of work: to be transcoded, to have its objects deleted, to have an upload
-- that never ended settled. `attempts` counts the claims since somebody last gave one back in order.
alter table leases add column work text not null default 'transcode';
alter table leases drop constraint leases_pkey;
alter table leases add primary key (work, video_id);

-- migrate:down
delete from leases where work <> 'transcode';
alter table leases drop constraint leases_pkey;
alter table leases drop column work;
alter table leases add primary key (video_id);
