//! The small part of SQL that both databases share, for what is written once: the admin tables.
//!
//! Statements number their values `$1`, `$2`, ... and name no dialect. A transaction is a job that gets a [`Sql`] and
//! runs to its end on a thread that may block, so its code is plain and sequential. A condition that does not apply
//! is left out of the statement instead of written as `$1 IS NULL OR ...`: PostgreSQL can't tell the type of such a
//! value, and SQLite would not use an index.

use super::{Answer, StoreError};
use crate::base::clock::Timestamp;

/// One connection, inside a transaction or a read.
pub trait Sql {
    /// The rows that a query gives.
    ///
    /// # Errors
    /// The database's, as one of the kinds of [`StoreError`].
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// The number of rows that a statement changed.
    ///
    /// # Errors
    /// The database's; `Refused` where a constraint forbids the change.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<usize, StoreError>;
}

/// A database that runs jobs written over [`Sql`].
pub trait Database: Send + Sync {
    /// Runs `job` with the store's time in one transaction, which ends as the job says; an error rolls it back.
    fn transaction<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Sql, Timestamp) -> Result<End<T>, StoreError> + Send + 'static,
    ) -> Answer<'_, T>;

    /// Runs `job` on a connection that only reads, within a bounded time.
    fn read<T: Send + 'static>(
        &self,
        reader: Reader,
        job: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T>;
}

/// How a transaction ends, with what it found either way.
#[derive(Debug)]
pub enum End<T> {
    Commit(T),
    RollBack(T),
}

/// Whose connection a read uses. People never make delivery wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Delivery,
    People,
}

/// A value of a statement or of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row of an answer. Its columns are read by their position, as the type that the statement's author knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Value>);

impl Row {
    pub fn new(columns: Vec<Value>) -> Self {
        Self(columns)
    }

    /// # Errors
    /// `Broken` where the column is missing or has another type, as for every getter.
    pub fn text(&self, column: usize) -> Result<String, StoreError> {
        self.opt_text(column)?.ok_or_else(|| wrong(column, "text"))
    }

    /// # Errors
    /// See [`Row::text`].
    pub fn opt_text(&self, column: usize) -> Result<Option<String>, StoreError> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(Value::Null) => Ok(None),
            _ => Err(wrong(column, "text")),
        }
    }

    /// # Errors
    /// See [`Row::text`]; also where the number does not fit.
    pub fn integer<T: TryFrom<i64>>(&self, column: usize) -> Result<T, StoreError> {
        self.opt_integer(column)?.ok_or_else(|| wrong(column, "a number"))
    }

    /// # Errors
    /// See [`Row::integer`].
    pub fn opt_integer<T: TryFrom<i64>>(&self, column: usize) -> Result<Option<T>, StoreError> {
        match self.0.get(column) {
            Some(Value::Integer(number)) => T::try_from(*number).map(Some).map_err(|_| wrong(column, "in its range")),
            Some(Value::Null) => Ok(None),
            _ => Err(wrong(column, "a number")),
        }
    }

    /// # Errors
    /// See [`Row::text`].
    pub fn bytes(&self, column: usize) -> Result<Vec<u8>, StoreError> {
        self.opt_bytes(column)?.ok_or_else(|| wrong(column, "bytes"))
    }

    /// # Errors
    /// See [`Row::text`].
    pub fn opt_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.get(column) {
            Some(Value::Bytes(bytes)) => Ok(Some(bytes.clone())),
            Some(Value::Null) => Ok(None),
            _ => Err(wrong(column, "bytes")),
        }
    }

    /// A SHA-256.
    ///
    /// # Errors
    /// See [`Row::text`].
    pub fn hash(&self, column: usize) -> Result<[u8; 32], StoreError> {
        self.bytes(column)?.try_into().map_err(|_| wrong(column, "32 bytes"))
    }

    /// # Errors
    /// See [`Row::text`].
    pub fn time(&self, column: usize) -> Result<Timestamp, StoreError> {
        self.integer(column).map(Timestamp::from_millis)
    }

    /// # Errors
    /// See [`Row::text`].
    pub fn opt_time(&self, column: usize) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.opt_integer(column)?.map(Timestamp::from_millis))
    }

    /// A truth value, which is stored as 0 or 1.
    ///
    /// # Errors
    /// See [`Row::text`].
    pub fn opt_bool(&self, column: usize) -> Result<Option<bool>, StoreError> {
        Ok(self.opt_integer::<i64>(column)?.map(|number| number != 0))
    }
}

/// What a row holds, or `Broken`: this program could not have written such a row.
///
/// # Errors
/// `Broken` where there is nothing.
pub fn readable<T>(value: Option<T>, what: &'static str) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Broken(format!("a row can't be read: {what}")))
}

fn wrong(column: usize, wanted: &'static str) -> StoreError {
    StoreError::Broken(format!("a row can't be read: column {column} is not {wanted}"))
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

/// For limits: what does not fit is as good as no limit.
impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Integer(truth.into())
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Integer(time.millis())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_another_type_is_an_error_and_not_a_default() {
        let row = Row::new(vec![Value::Text("x".to_owned()), Value::Integer(300), Value::Null, Value::Bytes(vec![1])]);
        assert_eq!(row.text(0).ok().as_deref(), Some("x"));
        assert_eq!(row.integer::<u16>(1).ok(), Some(300));
        assert_eq!(row.opt_text(2).ok(), Some(None));
        assert_eq!(row.opt_time(2).ok(), Some(None));
        assert_eq!(row.bytes(3).ok(), Some(vec![1]));
        assert!(row.integer::<u8>(1).is_err(), "300 is no u8");
        assert!(row.text(2).is_err() && row.integer::<i64>(2).is_err(), "nothing is not a value");
        assert!(row.text(1).is_err() && row.integer::<i64>(0).is_err() && row.bytes(0).is_err());
        assert!(row.hash(3).is_err(), "a hash has 32 bytes");
        assert!(row.text(4).is_err(), "there is no such column");
    }
}
