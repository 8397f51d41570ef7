-- migrate:up
-- When the decision was recorded that a parked record was left to: who asks about a moment before must not see what came of it.
alter table parked add column decided_at timestamptz;
alter table parking_steps add column decided_at timestamptz;

-- migrate:down
alter table parking_steps drop column decided_at;
alter table parked drop column decided_at;
