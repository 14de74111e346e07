//! The `pause` table: what an operator has paused.

use crate::model::endpoint::Origin;
use crate::model::pause::{Pause, PauseScope};
use crate::store::StoreError;
use crate::store::sql::{Row, Sql, readable};

const COLUMNS: &str = "team, origin, since, paused_by, reason";

pub(super) fn list(sql: &mut dyn Sql) -> Result<Vec<Pause>, StoreError> {
    let rows = sql.query(&format!("SELECT {COLUMNS} FROM pause ORDER BY team, origin"), &[])?;
    rows.iter().map(read).collect()
}

/// The pause as it is now: one that was there before stays as it is.
pub(super) fn insert(sql: &mut dyn Sql, pause: &Pause) -> Result<Pause, StoreError> {
    let [team, origin] = columns(&pause.scope);
    let values =
        [(&team).into(), (&origin).into(), pause.since.into(), (&pause.paused_by).into(), (&pause.reason).into()];
    let statement = format!("INSERT INTO pause ({COLUMNS}) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING");
    sql.execute(&statement, &values)?;
    let statement = format!("SELECT {COLUMNS} FROM pause WHERE team = $1 AND origin = $2");
    let rows = sql.query(&statement, &[team.into(), origin.into()])?;
    read(readable(rows.first(), "a pause")?)
}

/// Whether there was such a pause.
pub(super) fn delete(sql: &mut dyn Sql, scope: &PauseScope) -> Result<bool, StoreError> {
    let [team, origin] = columns(scope);
    let deleted = sql.execute("DELETE FROM pause WHERE team = $1 AND origin = $2", &[team.into(), origin.into()])?;
    Ok(deleted == 1)
}

/// Deletes the pauses of a team and of its endpoints.
pub(super) fn delete_of_team(sql: &mut dyn Sql, team: &str) -> Result<(), StoreError> {
    sql.execute("DELETE FROM pause WHERE team = $1", &[team.into()]).map(|_| ())
}

fn columns(scope: &PauseScope) -> [String; 2] {
    [scope.team().map(|team| team.to_string()), scope.origin().map(ToString::to_string)].map(Option::unwrap_or_default)
}

fn read(row: &Row) -> Result<Pause, StoreError> {
    let (team, origin) = (row.text(0)?, row.text(1)?);
    let scope = match (&*team, &*origin) {
        ("", _) => PauseScope::All,
        (team, "") => PauseScope::Team(team.into()),
        (team, origin) => PauseScope::Endpoint(team.into(), readable(Origin::parse(origin), "a paused origin")?),
    };
    Ok(Pause { scope, since: row.time(2)?, paused_by: row.text(3)?, reason: row.text(4)? })
}
