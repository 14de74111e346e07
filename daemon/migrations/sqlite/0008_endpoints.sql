-- How each endpoint has answered lately, so that a restart forgets nothing. The outcomes of its last attempts are names with
-- spaces between them, the newest last.
CREATE TABLE endpoint (
    team            TEXT NOT NULL,
    origin          TEXT NOT NULL,
    outcomes        TEXT NOT NULL,
    failures        INTEGER NOT NULL,
    failing_since   INTEGER,
    last_at         INTEGER NOT NULL,
    last_success_at INTEGER,
    PRIMARY KEY (team, origin)
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoint_last_at ON endpoint (last_at);

-- What each instance has ended and buried. The store keeps the sums of instances whose rows are gone.
ALTER TABLE instance ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN exhausted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN abandoned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN dead_letters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN exhausted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN abandoned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN dead_letters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN counted_since INTEGER NOT NULL DEFAULT 0;
UPDATE store SET counted_since = CAST(unixepoch('subsec') * 1000 AS INTEGER);
