-- The settings of teams that requests were sent with, each combination once; attempts and ended callbacks name it. `id` is the
-- beginning of the hash of the rest. A url of NULL is the task's own, which stands in the body. Ids of keys have commas between them.
CREATE TABLE sent_with (
    id           INTEGER PRIMARY KEY,
    team         TEXT NOT NULL,
    mode         TEXT NOT NULL,
    url          TEXT,
    form         TEXT NOT NULL,
    signing_keys TEXT NOT NULL,
    auth_keys    TEXT NOT NULL,
    first_at     INTEGER NOT NULL,
    used_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX sent_with_used ON sent_with (used_at);

ALTER TABLE settled ADD COLUMN sent_with INTEGER;
ALTER TABLE attempt ADD COLUMN sent_with INTEGER;
