-- Several processes share a store. Numbers of instances are random from now on, so that a database that went back to an earlier
-- state gives none of them twice.
ALTER TABLE instance ALTER COLUMN id DROP IDENTITY;
-- What the process says of itself; and what the last batch did, a byte a change and one a partition, for a process whose
-- acknowledgement was lost.
ALTER TABLE instance ADD COLUMN name text, ADD COLUMN host text, ADD COLUMN version text, ADD COLUMN answer bytea;
-- The last sign of life of each instance. It has a table of its own: a batch that holds the row of its instance for long must
-- not look dead.
CREATE TABLE instance_pulse (
    instance bigint PRIMARY KEY,
    at       bigint NOT NULL
) WITH (fillfactor = 50);
-- Since when another instance wants a partition from an owner that lives.
ALTER TABLE partition_offsets ADD COLUMN wanted_at bigint;
-- The timeline of the server, and since when it is known: after a failover the clock may be another one.
ALTER TABLE store ADD COLUMN timeline text, ADD COLUMN timeline_at bigint;
