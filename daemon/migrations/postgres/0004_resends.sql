-- Callbacks that are sent again under an id of their own.
ALTER TABLE pending ADD COLUMN new_id boolean NOT NULL DEFAULT false;
-- Rounds that were not tried yet: a job waits while there are many of them.
CREATE INDEX pending_untried ON pending (team) WHERE round > 0 AND tries = 0;

-- What became of a dead letter: nothing (NULL), `resent` as the callback of this id, or `discarded`. `headers` are those of the
-- record's headers that say who it is for and what it is, as JSON; an earlier version did not keep them.
ALTER TABLE dead_letter ADD COLUMN fate text, ADD COLUMN callback uuid, ADD COLUMN headers bytea;

-- Jobs that send many callbacks again, newest event first. `filter` says which, as JSON, and `endpoint` how the queues in
-- it were asked for. `cursor` is the last callback that was
-- looked at. `holder` is the instance that works on it until `held_until`.
CREATE TABLE resend_job (
    id               text PRIMARY KEY COLLATE "C",
    created_at       bigint NOT NULL,
    created_by       text NOT NULL,
    filter           text NOT NULL,
    endpoint         text,
    to_default       bigint NOT NULL,
    allow_new_origin bigint NOT NULL,
    new_id           bigint NOT NULL,
    rate             bigint,
    state            text NOT NULL,
    matched          bigint NOT NULL,
    cursor           bytea,
    opened           bigint NOT NULL DEFAULT 0,
    busy             bigint NOT NULL DEFAULT 0,
    no_body          bigint NOT NULL DEFAULT 0,
    refused          bigint NOT NULL DEFAULT 0,
    changed_at       bigint NOT NULL,
    holder           bigint,
    held_until       bigint NOT NULL DEFAULT 0
);
