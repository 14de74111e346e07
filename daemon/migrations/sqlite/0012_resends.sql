-- Callbacks that are sent again under an id of their own.
ALTER TABLE pending ADD COLUMN new_id INTEGER NOT NULL DEFAULT 0;
-- Rounds that were not tried yet: a job waits while there are many of them.
CREATE INDEX pending_untried ON pending (team) WHERE round > 0 AND tries = 0;

-- What became of a dead letter: nothing (NULL), `resent` as the callback of this id, or `discarded`. `headers` are those of the
-- record's headers that say who it is for and what it is, as JSON; an earlier version did not keep them.
ALTER TABLE dead_letter ADD COLUMN fate TEXT;
ALTER TABLE dead_letter ADD COLUMN callback BLOB;
ALTER TABLE dead_letter ADD COLUMN headers TEXT;

-- Jobs that send many callbacks again, newest event first. `filter` says which, as JSON, and `endpoint` how the queues in
-- it were asked for. `cursor` is the last callback that was
-- looked at. `holder` is the instance that works on it until `held_until`.
CREATE TABLE resend_job (
    id               TEXT PRIMARY KEY,
    created_at       INTEGER NOT NULL,
    created_by       TEXT NOT NULL,
    filter           TEXT NOT NULL,
    endpoint         TEXT,
    to_default       INTEGER NOT NULL,
    allow_new_origin INTEGER NOT NULL,
    new_id           INTEGER NOT NULL,
    rate             INTEGER,
    state            TEXT NOT NULL,
    matched          INTEGER NOT NULL,
    cursor           BLOB,
    opened           INTEGER NOT NULL DEFAULT 0,
    busy             INTEGER NOT NULL DEFAULT 0,
    no_body          INTEGER NOT NULL DEFAULT 0,
    refused          INTEGER NOT NULL DEFAULT 0,
    changed_at       INTEGER NOT NULL,
    holder           INTEGER,
    held_until       INTEGER NOT NULL DEFAULT 0
) STRICT;
