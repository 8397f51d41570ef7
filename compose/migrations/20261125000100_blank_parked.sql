-- migrate:up
-- Whether something of a parked record was made unreadable because it names a viewer who was forgotten. The log has it whole.
alter table parked add column is_blank boolean not null default false;
alter table parking_steps add column is_blank boolean not null default false;

-- migrate:down
alter table parking_steps drop column is_blank;
alter table parked drop column is_blank;
