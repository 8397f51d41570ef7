-- migrate:up
-- Until then nobody folds this version on: it is being compared. Who compares renews it, and ends it; one that died is waited out.
alter table versions add column held_until timestamptz;

-- migrate:down
alter table versions drop column held_until;
