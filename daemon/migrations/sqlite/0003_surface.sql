-- What people ask by. Partial: a delivery, nearly every callback, writes none of these.
CREATE INDEX settled_failed_team   ON settled (team, id)   WHERE state <> 'delivered';
CREATE INDEX settled_failed_queue  ON settled (queue, id)  WHERE state <> 'delivered';
CREATE INDEX settled_failed_state  ON settled (state, id)  WHERE state <> 'delivered';
CREATE INDEX settled_failed_reason ON settled (reason, id) WHERE state <> 'delivered';

-- Records that name no task: why nothing may be known of one.
CREATE INDEX dead_letter_nameless ON dead_letter (id) WHERE task IS NULL;

-- Bearer tokens of /admin/v1: 256 random bits, of which only the SHA-256 is kept.
CREATE TABLE token (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    scope      TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    last4      TEXT NOT NULL,
    made_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

-- Idempotency-Key: what one actor's request made, for a day. Nothing of the answer is kept.
CREATE TABLE once (
    actor       TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    object      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX once_at ON once (at);

CREATE INDEX audit_object ON audit (object, id);
