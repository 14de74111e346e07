-- The settings of teams that requests were sent with, each combination once; attempts and ended callbacks name it. `id` is the
-- beginning of the hash of the rest. A url of NULL is the task's own, which stands in the body. Ids of keys have commas between them.
CREATE TABLE sent_with (
    id           bigint PRIMARY KEY,
    team         text NOT NULL,
    mode         text NOT NULL,
    url          text,
    form         text NOT NULL,
    signing_keys text NOT NULL,
    auth_keys    text NOT NULL,
    first_at     bigint NOT NULL,
    used_at      bigint NOT NULL
);
CREATE INDEX sent_with_used ON sent_with (used_at);

ALTER TABLE settled ADD COLUMN sent_with bigint;
ALTER TABLE attempt ADD COLUMN sent_with bigint;
