-- The delivery engine's tables. Times are milliseconds since 1970, UTC. Customers' bytes are BLOBs.

-- Names this store: Kafka's committed offsets carry the id, so that a swapped or lost store is noticed.
CREATE TABLE store (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    id         TEXT NOT NULL,
    generation INTEGER NOT NULL,
    made_at    INTEGER NOT NULL
) STRICT;

-- One row a process that writes here; batch = the last numbered batch applied.
CREATE TABLE process (
    id         INTEGER PRIMARY KEY,
    batch      INTEGER NOT NULL,
    heartbeat  INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    clean      INTEGER NOT NULL
) STRICT;

-- How far each partition has come: every record below done_upto is durable.
CREATE TABLE source (
    id        INTEGER PRIMARY KEY,
    cluster   TEXT NOT NULL,
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    done_upto INTEGER NOT NULL,
    seen_upto INTEGER NOT NULL,
    last_off  INTEGER,
    last_hash BLOB,
    epoch     INTEGER NOT NULL,
    owner     INTEGER,
    -- The foreign store id in Kafka's offsets that an operator accepted.
    accepted  TEXT,
    moved_at  INTEGER NOT NULL,
    UNIQUE (cluster, topic, partition)
) STRICT;

-- What due callbacks wait in. next_at = when the first may be due; NULL with none.
CREATE TABLE queue (
    id           INTEGER PRIMARY KEY,
    team         TEXT NOT NULL,
    target       TEXT NOT NULL,
    next_at      INTEGER,
    rest_until   INTEGER NOT NULL DEFAULT 0,
    paused       INTEGER NOT NULL DEFAULT 0,
    parked_bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (team, target)
) STRICT;
CREATE INDEX queue_next ON queue (next_at) WHERE next_at IS NOT NULL;

-- Ended callbacks, append-mostly: ids begin with the event's time.
CREATE TABLE settled (
    id           BLOB PRIMARY KEY,
    src          INTEGER NOT NULL,
    off          INTEGER NOT NULL,
    record_at    INTEGER NOT NULL,
    team         TEXT NOT NULL,
    task         BLOB NOT NULL,
    event_id     BLOB,
    event_type   TEXT NOT NULL,
    queue        INTEGER NOT NULL,
    test         INTEGER NOT NULL,
    content_hash BLOB NOT NULL,
    builder      INTEGER NOT NULL,
    state        TEXT NOT NULL,
    reason       TEXT,
    attempts     INTEGER NOT NULL,
    status       INTEGER,
    outcome      TEXT NOT NULL,
    round        INTEGER NOT NULL,
    first_at     INTEGER NOT NULL,
    settled_at   INTEGER NOT NULL,
    revision     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX settled_task ON settled (task);

-- Callbacks that outlived their first attempt, or had no room for it.
CREATE TABLE pending (
    id           BLOB PRIMARY KEY,
    src          INTEGER NOT NULL,
    off          INTEGER NOT NULL,
    record_at    INTEGER NOT NULL,
    team         TEXT NOT NULL,
    task         BLOB NOT NULL,
    event_id     BLOB,
    event_type   TEXT NOT NULL,
    queue        INTEGER NOT NULL,
    test         INTEGER NOT NULL,
    content_hash BLOB NOT NULL,
    builder      INTEGER NOT NULL,
    url          BLOB,
    since        INTEGER,
    horizon      INTEGER,
    tries        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    due          INTEGER NOT NULL,
    token        INTEGER,
    lease_until  INTEGER,
    starts       INTEGER NOT NULL,
    last_outcome TEXT,
    round        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_task ON pending (task);
CREATE INDEX pending_due ON pending (queue, due) WHERE token IS NULL;
CREATE INDEX pending_lease ON pending (lease_until) WHERE token IS NOT NULL;

CREATE TABLE body (
    id    BLOB PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

-- Attempts, except a first delivery, which stands in its settled row.
CREATE TABLE attempt (
    id       BLOB NOT NULL,
    n        INTEGER NOT NULL,
    round    INTEGER NOT NULL,
    outcome  TEXT NOT NULL,
    sent     INTEGER NOT NULL,
    status   INTEGER,
    begun_at INTEGER NOT NULL,
    ms       INTEGER NOT NULL,
    peer     TEXT,
    redialed INTEGER NOT NULL,
    snippet  BLOB NOT NULL,
    PRIMARY KEY (id, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letter (
    id        BLOB PRIMARY KEY,
    src       INTEGER NOT NULL,
    off       INTEGER NOT NULL,
    record_at INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    team      BLOB,
    task      BLOB,
    event_id  BLOB,
    value     BLOB NOT NULL,
    value_len INTEGER NOT NULL,
    buried_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letter_at ON dead_letter (buried_at);
CREATE INDEX dead_letter_task ON dead_letter (task) WHERE task IS NOT NULL;

-- Event ids without a time, claimed before their POST.
CREATE TABLE dedupe (
    hash BLOB PRIMARY KEY,
    id   BLOB NOT NULL,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dedupe_at ON dedupe (at);
