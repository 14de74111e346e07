-- The tables of a store on PostgreSQL. Times are milliseconds since 1970, UTC. Customers' bytes are bytea, because text
-- refuses U+0000. The columns mean what they mean on SQLite.

-- Names this store: Kafka's committed offsets carry the id, so that a swapped or lost store is noticed. The sums are those of
-- instances whose rows are gone.
CREATE TABLE store (
    one           bigint PRIMARY KEY CHECK (one = 1),
    id            text NOT NULL,
    generation    bigint NOT NULL,
    created_at    bigint NOT NULL,
    delivered     bigint NOT NULL DEFAULT 0,
    exhausted     bigint NOT NULL DEFAULT 0,
    abandoned     bigint NOT NULL DEFAULT 0,
    dead_letters  bigint NOT NULL DEFAULT 0,
    counted_since bigint NOT NULL
);

-- One row a run of a daemon; batch = the last numbered batch that was applied. It is updated with every batch.
CREATE TABLE instance (
    id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    batch        bigint NOT NULL,
    heartbeat    bigint NOT NULL,
    started_at   bigint NOT NULL,
    clean        bigint NOT NULL,
    run          text,
    delivered    bigint NOT NULL DEFAULT 0,
    exhausted    bigint NOT NULL DEFAULT 0,
    abandoned    bigint NOT NULL DEFAULT 0,
    dead_letters bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- How far each partition has come: every record below the watermark is durable. `accepted` is the foreign store id in
-- Kafka's offsets that an operator accepted.
CREATE TABLE partition_offsets (
    id         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    cluster    text NOT NULL,
    topic      text NOT NULL,
    partition  integer NOT NULL,
    watermark  bigint NOT NULL,
    seen_upto  bigint NOT NULL,
    last_off   bigint,
    last_hash  bytea,
    epoch      bigint NOT NULL,
    owner      bigint,
    accepted   text,
    moved_at   bigint NOT NULL,
    taken_upto bigint,
    deaths     integer NOT NULL DEFAULT 0,
    UNIQUE (cluster, topic, partition)
) WITH (fillfactor = 50);

-- What due callbacks wait in. next_at = when the first may be due; NULL with none.
CREATE TABLE queue (
    id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    team         text COLLATE "C" NOT NULL,
    target       text COLLATE "C" NOT NULL,
    next_at      bigint,
    rest_until   bigint NOT NULL DEFAULT 0,
    paused       boolean NOT NULL DEFAULT false,
    parked_bytes bigint NOT NULL DEFAULT 0,
    used_at      bigint NOT NULL,
    UNIQUE (team, target)
) WITH (fillfactor = 50);
CREATE INDEX queue_next ON queue (next_at) WHERE next_at IS NOT NULL;

-- Ended callbacks, append-mostly: ids begin with the event's time.
CREATE TABLE settled (
    id           uuid PRIMARY KEY,
    partition_id bigint NOT NULL,
    off          bigint NOT NULL,
    record_at    bigint NOT NULL,
    queue        bigint NOT NULL,
    first_at     bigint NOT NULL,
    settled_at   bigint NOT NULL,
    builder      integer NOT NULL,
    attempts     integer NOT NULL,
    status       integer,
    round        integer NOT NULL,
    revision     integer NOT NULL,
    test         boolean NOT NULL,
    team         text NOT NULL,
    task         bytea NOT NULL,
    event_id     bytea,
    event_type   text NOT NULL,
    content_hash bytea NOT NULL,
    state        text NOT NULL,
    reason       text,
    outcome      text NOT NULL
);
CREATE INDEX settled_task ON settled (task, id);
-- What people ask by. Partial: a delivery, nearly every callback, writes none of these.
CREATE INDEX settled_failed_team   ON settled (team, id)   WHERE state <> 'delivered';
CREATE INDEX settled_failed_queue  ON settled (queue, id)  WHERE state <> 'delivered';
CREATE INDEX settled_failed_state  ON settled (state, id)  WHERE state <> 'delivered';
CREATE INDEX settled_failed_reason ON settled (reason, id) WHERE state <> 'delivered';

-- Callbacks that outlived their first attempt, or had no room for it.
CREATE TABLE pending (
    id           uuid PRIMARY KEY,
    partition_id bigint NOT NULL,
    off          bigint NOT NULL,
    record_at    bigint NOT NULL,
    queue        bigint NOT NULL,
    due          bigint NOT NULL,
    since        bigint,
    horizon      bigint,
    token        bigint,
    lease_until  bigint,
    builder      integer NOT NULL,
    tries        integer NOT NULL,
    attempts     integer NOT NULL,
    starts       integer NOT NULL,
    round        integer NOT NULL,
    test         boolean NOT NULL,
    team         text NOT NULL,
    task         bytea NOT NULL,
    event_id     bytea,
    event_type   text NOT NULL,
    content_hash bytea NOT NULL,
    url          bytea,
    last_outcome text
) WITH (fillfactor = 80);
CREATE INDEX pending_task ON pending (task, id);
CREATE INDEX pending_due ON pending (queue, due) WHERE token IS NULL;
CREATE INDEX pending_lease ON pending (lease_until) WHERE token IS NOT NULL;

CREATE TABLE body (
    id    uuid PRIMARY KEY,
    bytes bytea NOT NULL
);

-- Attempts, except a first delivery, which stands in its settled row.
CREATE TABLE attempt (
    id       uuid NOT NULL,
    n        integer NOT NULL,
    round    integer NOT NULL,
    status   integer,
    begun_at bigint NOT NULL,
    ms       bigint NOT NULL,
    sent     boolean NOT NULL,
    redialed boolean NOT NULL,
    outcome  text NOT NULL,
    peer     text,
    snippet  bytea NOT NULL,
    PRIMARY KEY (id, n)
);

-- A value that has no room is not kept; its hash tells it from others all the same. Of customers' texts, `detail` is bytes,
-- too.
CREATE TABLE dead_letter (
    id           uuid PRIMARY KEY,
    partition_id bigint NOT NULL,
    off          bigint NOT NULL,
    record_at    bigint NOT NULL,
    buried_at    bigint NOT NULL,
    value_len    bigint NOT NULL,
    reason       text NOT NULL,
    detail       bytea NOT NULL,
    team         bytea,
    task         bytea,
    event_id     bytea,
    value        bytea NOT NULL,
    value_hash   bytea
);
CREATE INDEX dead_letter_at ON dead_letter (buried_at);
CREATE INDEX dead_letter_task ON dead_letter (task, id) WHERE task IS NOT NULL;
-- Records that name no task: why nothing may be known of one.
CREATE INDEX dead_letter_nameless ON dead_letter (id) WHERE task IS NULL;

-- The bytes of dead letters' values by topic, so that a budget bounds them.
CREATE TABLE dead_letter_bytes (
    topic text PRIMARY KEY,
    bytes bigint NOT NULL
);

-- Event ids without a time, claimed before their POST.
CREATE TABLE dedupe (
    hash bytea PRIMARY KEY,
    id   uuid NOT NULL,
    at   bigint NOT NULL
);
CREATE INDEX dedupe_at ON dedupe (at);

-- How each endpoint has answered lately. The outcomes of its last attempts are names with spaces between them, the newest
-- last.
CREATE TABLE endpoint (
    team            text NOT NULL,
    origin          text NOT NULL,
    outcomes        text NOT NULL,
    failures        bigint NOT NULL,
    failing_since   bigint,
    last_at         bigint NOT NULL,
    last_success_at bigint,
    PRIMARY KEY (team, origin)
);
CREATE INDEX endpoint_last_at ON endpoint (last_at);

-- The admin tables. version rises with every change, so that a running daemon sees it within a second.
CREATE TABLE admin_version (
    one     bigint PRIMARY KEY CHECK (one = 1),
    version bigint NOT NULL
);
INSERT INTO admin_version (one, version) VALUES (1, 1);

CREATE TABLE team (
    id               text PRIMARY KEY COLLATE "C",
    name             text NOT NULL,
    default_url      text,
    default_url_test text,
    allowed_origins  text NOT NULL,
    auth_form        text NOT NULL,
    origin_forms     text NOT NULL,
    http             text,
    retries          bigint,
    horizon_ms       bigint,
    end_on_gone      bigint,
    created_at       bigint NOT NULL,
    changed_at       bigint NOT NULL
);

-- sealed = nonce and ciphertext under the keyring's key that `keyring` names; associated data = team, kind, mode, id.
CREATE TABLE team_key (
    id         text PRIMARY KEY COLLATE "C",
    team       text NOT NULL REFERENCES team (id),
    kind       text NOT NULL,
    mode       text NOT NULL,
    state      text NOT NULL,
    keyring    text NOT NULL,
    sealed     bytea NOT NULL,
    last4      text NOT NULL,
    created_at bigint NOT NULL,
    promote_at bigint,
    revoked_at bigint,
    used_at    bigint
);
CREATE INDEX team_key_team ON team_key (team);

-- Bearer tokens of /admin/v1: 256 random bits, of which only the SHA-256 is kept. `teams` has the ids of the teams to which a
-- token is limited, one a line; NULL without a limit.
CREATE TABLE token (
    id         text PRIMARY KEY COLLATE "C",
    name       text NOT NULL,
    scope      text NOT NULL,
    hash       bytea NOT NULL UNIQUE,
    last4      text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    revoked_at bigint,
    teams      text,
    used_at    bigint
);

-- Idempotency-Key: what one caller's request made, for a day. Nothing of the answer is kept.
CREATE TABLE idempotency_key (
    caller      text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    object      text NOT NULL,
    at          bigint NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_key_at ON idempotency_key (at);

CREATE TABLE audit (
    id      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at      bigint NOT NULL,
    caller  text NOT NULL,
    address text NOT NULL,
    action  text NOT NULL,
    object  text NOT NULL,
    change  text NOT NULL
);
CREATE INDEX audit_object ON audit (object, id);
