-- One word for one thing: the names that code, API and documents use. Nothing but names changes.
ALTER TABLE process RENAME TO instance;

ALTER TABLE source RENAME TO partition_offsets;
ALTER TABLE partition_offsets RENAME COLUMN done_upto TO watermark;
ALTER TABLE settled RENAME COLUMN src TO partition_id;
ALTER TABLE pending RENAME COLUMN src TO partition_id;
ALTER TABLE dead_letter RENAME COLUMN src TO partition_id;

ALTER TABLE people_version RENAME TO admin_version;
ALTER TABLE once RENAME TO idempotency_key;
DROP INDEX once_at;
CREATE INDEX idempotency_key_at ON idempotency_key (at);

ALTER TABLE store RENAME COLUMN made_at TO created_at;
ALTER TABLE team RENAME COLUMN made_at TO created_at;
ALTER TABLE team_key RENAME COLUMN made_at TO created_at;
ALTER TABLE token RENAME COLUMN made_at TO created_at;

ALTER TABLE idempotency_key RENAME COLUMN actor TO caller;
ALTER TABLE audit RENAME COLUMN actor TO caller;
ALTER TABLE audit RENAME COLUMN origin TO address;
