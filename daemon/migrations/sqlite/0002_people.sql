-- Teams and their keys. version rises with every change, so that a running daemon sees it within a second.
CREATE TABLE people_version (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO people_version (one, version) VALUES (1, 1);

CREATE TABLE team (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    default_url      TEXT,
    default_url_test TEXT,
    allowed_origins  TEXT NOT NULL,
    auth_form        TEXT NOT NULL,
    origin_forms     TEXT NOT NULL,
    http             TEXT,
    retries          INTEGER,
    horizon_ms       INTEGER,
    end_on_gone      INTEGER,
    made_at          INTEGER NOT NULL,
    changed_at       INTEGER NOT NULL
) STRICT;

-- sealed = nonce and ciphertext under the keyring's key that `keyring` names; associated data = team, kind, mode, id.
CREATE TABLE team_key (
    id         TEXT PRIMARY KEY,
    team       TEXT NOT NULL,
    kind       TEXT NOT NULL,
    mode       TEXT NOT NULL,
    state      TEXT NOT NULL,
    keyring    TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    last4      TEXT NOT NULL,
    made_at    INTEGER NOT NULL,
    promote_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE INDEX team_key_team ON team_key (team);

CREATE TABLE audit (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    origin TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    change TEXT NOT NULL
) STRICT;
