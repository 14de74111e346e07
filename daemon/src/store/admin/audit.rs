//! The `audit` table: who changed what, when, and from where. Rows are only ever added.

use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::sql::{Row, Sql, Value};

/// Who changed what, and from where. `change` holds no secret.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub caller: String,
    pub address: String,
    pub action: &'static str,
    pub object: String,
    pub change: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub id: i64,
    pub at: Timestamp,
    pub caller: String,
    pub address: String,
    pub action: String,
    pub object: String,
    pub change: String,
}

/// Which audit rows; every given field must match.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub object: Option<String>,
    pub caller: Option<String>,
    pub of_teams: Option<TeamRows>,
}

/// The audit rows of some teams. An object's name alone does not tell a team from a token, so the action decides, too.
#[derive(Debug, Clone)]
pub struct TeamRows {
    pub teams: Vec<String>,
    /// The actions whose object is a team.
    pub actions: Vec<&'static str>,
}

impl TeamRows {
    pub fn include(&self, row: &AuditRow) -> bool {
        self.teams.contains(&row.object) && self.actions.contains(&row.action.as_str())
    }
}

pub(in crate::store) fn insert(sql: &mut dyn Sql, entry: &AuditEntry, now: Timestamp) -> Result<(), StoreError> {
    let values: [Value; 6] = [
        now.into(),
        (&entry.caller).into(),
        (&entry.address).into(),
        entry.action.into(),
        (&entry.object).into(),
        (&entry.change).into(),
    ];
    sql.execute(
        "INSERT INTO audit (at, caller, address, action, object, change) VALUES ($1, $2, $3, $4, $5, $6)",
        &values,
    )
    .map(|_| ())
}

/// The newest rows below `before`. With an object, the condition is an equality on the first column of the index
/// `audit_object (object, id)` and a range on its second, which no planner answers better by another way.
pub(in crate::store) fn list(
    sql: &mut dyn Sql,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<AuditRow>, StoreError> {
    let conditions: [(&str, Option<Value>); 3] = [
        ("object =", filter.object.as_ref().map(Value::from)),
        ("caller =", filter.caller.as_ref().map(Value::from)),
        ("id <", before.map(Value::from)),
    ];
    let mut values = Vec::new();
    let mut statement = "SELECT id, at, caller, address, action, object, change FROM audit".to_owned();
    for (condition, value) in conditions {
        let Some(value) = value else { continue };
        statement += if values.is_empty() { " WHERE " } else { " AND " };
        values.push(value);
        statement += &format!("{condition} ${}", values.len());
    }
    if let Some(TeamRows { teams, actions }) = &filter.of_teams {
        let objects: Vec<_> = teams.iter().map(Value::from).collect();
        let actions: Vec<_> = actions.iter().map(|action| Value::from(*action)).collect();
        for (column, among) in [("object", objects), ("action", actions)] {
            let first = values.len() + 1;
            values.extend(among);
            let places: Vec<_> = (first..=values.len()).map(|place| format!("${place}")).collect();
            statement += if first == 1 { " WHERE " } else { " AND " };
            statement += &format!("{column} IN ({})", places.join(", "));
        }
    }
    values.push(limit.into());
    statement += &format!(" ORDER BY id DESC LIMIT ${}", values.len());
    sql.query(&statement, &values)?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        id: row.integer(0)?,
        at: row.time(1)?,
        caller: row.text(2)?,
        address: row.text(3)?,
        action: row.text(4)?,
        object: row.text(5)?,
        change: row.text(6)?,
    })
}
