//! [`Sql`] on a SQLite connection: changes run on the writer thread, reads on a reading connection.

use rusqlite::types::{Null, ValueRef};
use rusqlite::{Connection, Statement, TransactionBehavior};

use super::connection::{SqliteStore, Writer};
use super::error::SqliteError;
use crate::base::clock::Timestamp;
use crate::store::sql::{Database, End, Reader, Row, Sql, Value};
use crate::store::{Answer, StoreError};

/// A connection for the time of one job.
pub(super) struct SqliteSql<'c>(pub(super) &'c Connection);

impl Sql for SqliteSql<'_> {
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        Ok(query(self.0, sql, values)?)
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<usize, StoreError> {
        Ok(execute(self.0, sql, values)?)
    }
}

impl Database for SqliteStore {
    fn transaction<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Sql, Timestamp) -> Result<End<T>, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        self.on_writer(move |writer| Ok(transact(writer, job)?))
    }

    fn read<T: Send + 'static>(
        &self,
        reader: Reader,
        job: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let job = move |connection: &Connection| job(&mut SqliteSql(connection)).map_err(SqliteError::Store);
        match reader {
            Reader::Delivery => self.read_for_delivery(job),
            Reader::People => self.read_for_people(job),
        }
    }
}

fn transact<T>(
    writer: &mut Writer,
    job: impl FnOnce(&mut dyn Sql, Timestamp) -> Result<End<T>, StoreError>,
) -> Result<T, SqliteError> {
    let now = writer.clock.now();
    let transaction = writer.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match job(&mut SqliteSql(&transaction), now)? {
        End::Commit(value) => transaction.commit().map(|()| value).map_err(SqliteError::from),
        End::RollBack(value) => transaction.rollback().map(|()| value).map_err(SqliteError::from),
    }
}

fn query(connection: &Connection, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqliteError> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, values)?;
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..columns).map(|column| value(row.get_ref(column)?));
        found.push(Row::new(values.collect::<Result<_, SqliteError>>()?));
    }
    Ok(found)
}

fn execute(connection: &Connection, sql: &str, values: &[Value]) -> Result<usize, SqliteError> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, values)?;
    Ok(statement.raw_execute()?)
}

/// To SQLite `$1` is a name, so every value is bound to the name of its number.
fn bind(statement: &mut Statement<'_>, values: &[Value]) -> Result<(), SqliteError> {
    if statement.parameter_count() != values.len() {
        return Err(SqliteError::Corrupt("a statement has another number of values"));
    }
    for (number, value) in (1_usize..).zip(values) {
        let place = statement.parameter_index(&format!("${number}"))?;
        let place = place.ok_or(SqliteError::Corrupt("a statement lacks one of its values"))?;
        match value {
            Value::Null => statement.raw_bind_parameter(place, Null),
            Value::Integer(number) => statement.raw_bind_parameter(place, number),
            Value::Text(text) => statement.raw_bind_parameter(place, text),
            Value::Bytes(bytes) => statement.raw_bind_parameter(place, bytes),
        }?;
    }
    Ok(())
}

pub(super) fn value(column: ValueRef<'_>) -> Result<Value, SqliteError> {
    match column {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(Value::Integer(number)),
        ValueRef::Text(text) => {
            let text = String::from_utf8(text.to_vec());
            text.map(Value::Text).map_err(|_| SqliteError::Corrupt("a text that is not UTF-8"))
        }
        ValueRef::Blob(bytes) => Ok(Value::Bytes(bytes.to_vec())),
        ValueRef::Real(_) => Err(SqliteError::Corrupt("a fraction, which no table has")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::migrations::tests::empty;
    use super::*;
    use crate::model::permission::{Rights, TeamLimit};
    use crate::store::admin::{AuditFilter, TokenRow, audit, tokens};
    use std::time::Duration;

    #[test]
    fn values_are_bound_by_their_number_in_any_order() {
        let connection = empty();
        let mut sql = SqliteSql(&connection);
        let rows =
            sql.query("SELECT $2, $1, $2, $3, $4", &[1_i64.into(), "two".into(), Value::Null, [9_u8][..].into()]);
        let expected = Row::new(vec!["two".into(), 1_i64.into(), "two".into(), Value::Null, Value::Bytes(vec![9])]);
        assert_eq!(rows.unwrap(), [expected]);
        assert!(sql.query("SELECT $1", &[]).is_err(), "too few values");
        assert!(sql.query("SELECT $1", &[1_i64.into(), 2_i64.into()]).is_err(), "too many values");
        assert!(sql.query("SELECT $2", &[1_i64.into()]).is_err(), "another number");
    }

    /// A [`Sql`] that answers with the plan of each query.
    struct Explain<'c>(SqliteSql<'c>, String);

    impl Sql for Explain<'_> {
        fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
            for row in self.0.query(&format!("EXPLAIN QUERY PLAN {sql}"), values)? {
                self.1 += &row.text(3)?;
            }
            Ok(Vec::new())
        }

        fn execute(&mut self, sql: &str, values: &[Value]) -> Result<usize, StoreError> {
            self.0.execute(sql, values)
        }
    }

    #[test]
    fn the_audit_of_an_object_is_read_by_its_index() {
        let connection = empty();
        for (object, caller, before) in [(true, false, None), (true, false, Some(7)), (true, true, Some(7))] {
            let mut explain = Explain(SqliteSql(&connection), String::new());
            let filter = AuditFilter {
                object: object.then(|| "o".to_owned()),
                caller: caller.then(|| "c".to_owned()),
                of_teams: None,
            };
            audit::list(&mut explain, &filter, before, 50).unwrap();
            let plan = explain.1;
            assert!(plan.contains("USING INDEX audit_object (object=?"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "it is in order already: {plan}");
        }
    }

    #[test]
    fn tokens_are_bounded_and_invalid_ones_make_room() {
        let connection = empty();
        let mut sql = SqliteSql(&connection);
        let start = Timestamp::from_millis(1_764_000_000_000);
        let token = |n: usize| TokenRow {
            id: format!("tok_{n}"),
            name: "t".to_owned(),
            scope: Rights::READ,
            hash: std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or(0)),
            last4: "1234".to_owned(),
            created_at: start,
            expires_at: start.plus(Duration::from_secs(60)),
            revoked_at: None,
            teams: TeamLimit::All,
            used_at: None,
        };
        for n in 0..tokens::MOST {
            assert!(tokens::insert(&mut sql, &token(n), start).unwrap(), "{n}");
        }
        assert!(!tokens::insert(&mut sql, &token(tokens::MOST), start).unwrap(), "all of them are valid");
        let later = start.plus(Duration::from_secs(60));
        assert!(tokens::insert(&mut sql, &token(tokens::MOST), later).unwrap(), "all of them are expired");
        let rows = sql.query("SELECT count(*) FROM token", &[]).unwrap();
        assert_eq!(rows[0].integer::<usize>(0).unwrap(), tokens::MOST - 100 + 1, "the oldest were deleted");
    }
}
