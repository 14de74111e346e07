//! When tokens and keys were last used.

use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::sql::Sql;

/// What was used, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Used {
    Token(String),
    Key(String),
}

pub(super) fn mark(sql: &mut dyn Sql, used: &[(Used, Timestamp)]) -> Result<(), StoreError> {
    for (what, at) in used {
        let (table, id) = match what {
            Used::Token(id) => ("token", id),
            Used::Key(id) => ("team_key", id),
        };
        let statement = format!("UPDATE {table} SET used_at = $2 WHERE id = $1 AND (used_at IS NULL OR used_at < $2)");
        sql.execute(&statement, &[id.into(), (*at).into()])?;
    }
    Ok(())
}
