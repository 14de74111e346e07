-- What an operator has paused. A team of '' means all teams, an origin of '' all endpoints of the team.
CREATE TABLE pause (
    team TEXT NOT NULL,
    origin TEXT NOT NULL,
    since INTEGER NOT NULL,
    paused_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (team, origin)
) STRICT, WITHOUT ROWID;

-- A deleted team keeps its row, so that its id is never used again.
ALTER TABLE team ADD COLUMN deleted_at INTEGER;
CREATE INDEX team_deleted ON team (deleted_at) WHERE deleted_at IS NOT NULL;
