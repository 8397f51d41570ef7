-- migrate:up
-- A database that holds checkpoints and no version comes from a release without a registry: all that it had folded was version 1, and
-- answers until its successors do. Without a row a worker would take what it declares for the version that answers, and begin it.
insert into versions (projection, version, fold, shards, state)
select name, 1, 1, 1, 'active'
from unnest(array['catalogue', 'views', 'statistics', 'positions', 'leaderboard', 'resume', 'search']) as name
where exists (select from checkpoints where version = 1) and not exists (select from versions);

-- migrate:down
-- What answers, answers: there is nothing to take back.
select 1;
