-- migrate:up
-- The offset, in the record's own partition, of the `view.retried` at which the decision was carried out; null where it was carried
-- out at its place among the decisions. A row of a mark itself, which took no id, has its own offset.
alter table parked add column mark bigint;
alter table parking_steps add column mark bigint;

-- migrate:down
alter table parking_steps drop column mark;
alter table parked drop column mark;
