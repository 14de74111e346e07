-- The bytes of dead letters' values by topic, so that a budget bounds them. A value that has no room is not kept; its
-- hash tells it from others all the same. It is missing in rows of earlier versions.
ALTER TABLE dead_letter ADD COLUMN value_hash BLOB;
CREATE TABLE dead_letter_bytes (
    topic TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Without the first step, all values would be sorted by topic.
WITH found AS MATERIALIZED (
    SELECT topic, length(value) AS bytes
    FROM dead_letter JOIN partition_offsets ON partition_offsets.id = dead_letter.partition_id
)
INSERT INTO dead_letter_bytes (topic, bytes) SELECT topic, sum(bytes) FROM found GROUP BY topic;

-- When a callback named the queue last, to the hour. A queue that nobody has used for as long as callbacks are kept goes.
ALTER TABLE queue ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
UPDATE queue SET used_at = CAST(unixepoch('subsec') * 1000 AS INTEGER);
