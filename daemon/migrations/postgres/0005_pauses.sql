-- What an operator has paused. A team of '' means all teams, an origin of '' all endpoints of the team.
CREATE TABLE pause (
    team text NOT NULL,
    origin text NOT NULL,
    since bigint NOT NULL,
    paused_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (team, origin)
);

-- A deleted team keeps its row, so that its id is never used again.
ALTER TABLE team ADD COLUMN deleted_at bigint;
CREATE INDEX team_deleted ON team (deleted_at) WHERE deleted_at IS NOT NULL;
