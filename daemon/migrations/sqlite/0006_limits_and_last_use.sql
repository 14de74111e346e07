-- The ids of the teams to which a token is limited, one a line; NULL without a limit.
ALTER TABLE token ADD COLUMN teams TEXT;
-- When a token and a key were last used, recorded at most once a minute.
ALTER TABLE token ADD COLUMN used_at INTEGER;
ALTER TABLE team_key ADD COLUMN used_at INTEGER;
