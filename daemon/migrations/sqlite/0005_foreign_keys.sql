-- A key belongs to a team that exists. SQLite can't add a foreign key to a table, so the table is built again. A key of
-- no team can't be used by anybody, so it is left out.
CREATE TABLE team_key_of_team (
    id         TEXT PRIMARY KEY,
    team       TEXT NOT NULL REFERENCES team (id),
    kind       TEXT NOT NULL,
    mode       TEXT NOT NULL,
    state      TEXT NOT NULL,
    keyring    TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    last4      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    promote_at INTEGER,
    revoked_at INTEGER
) STRICT;
INSERT INTO team_key_of_team (id, team, kind, mode, state, keyring, sealed, last4, created_at, promote_at, revoked_at)
    SELECT id, team, kind, mode, state, keyring, sealed, last4, created_at, promote_at, revoked_at FROM team_key
    WHERE team IN (SELECT id FROM team);
DROP TABLE team_key;
ALTER TABLE team_key_of_team RENAME TO team_key;
CREATE INDEX team_key_team ON team_key (team);
