//! Values on their way to PostgreSQL, and the insertion of many rows by one statement: one array a column, which `unnest`
//! makes rows again.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::model::callback::CallbackId;

/// A callback's id as PostgreSQL's `uuid`: 16 bytes, in the order of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl From<CallbackId> for Uuid {
    fn from(id: CallbackId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<Uuid> for CallbackId {
    fn from(id: Uuid) -> Self {
        Self::from_bytes(id.0)
    }
}

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

/// A value of a statement that is sent later.
pub(super) type Param<'v> = Box<dyn ToSql + Sync + Send + 'v>;

pub(super) fn param<'v>(value: impl ToSql + Sync + Send + 'v) -> Param<'v> {
    Box::new(value)
}

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'v> {
    Null,
    Id(CallbackId),
    Integer(i64),
    Text(&'v str),
    Bytes(&'v [u8]),
    Bool(bool),
}

impl ToSql for Cell<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Id(id) => Uuid::from(*id).to_sql_checked(ty, out),
            Self::Integer(number) if *ty == Type::INT4 => i32::try_from(*number)?.to_sql_checked(ty, out),
            Self::Integer(number) => number.to_sql_checked(ty, out),
            Self::Text(text) => text.to_sql_checked(ty, out),
            Self::Bytes(bytes) => bytes.to_sql_checked(ty, out),
            Self::Bool(truth) => truth.to_sql_checked(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::UUID, Type::INT8, Type::INT4, Type::TEXT, Type::BYTEA, Type::BOOL].contains(ty)
    }

    to_sql_checked!();
}

impl<'v, T: Into<Cell<'v>>> From<Option<T>> for Cell<'v> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<CallbackId> for Cell<'_> {
    fn from(id: CallbackId) -> Self {
        Self::Id(id)
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Cell<'_> {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u16> for Cell<'_> {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl From<bool> for Cell<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl<'v> From<&'v str> for Cell<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v [u8]> for Cell<'v> {
    fn from(bytes: &'v [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

/// Rows of the same columns, as one array a column.
pub(super) struct Table<'v, const N: usize> {
    columns: [Vec<Cell<'v>>; N],
}

impl<'v, const N: usize> Table<'v, N> {
    pub(super) fn new() -> Self {
        Self { columns: std::array::from_fn(|_| Vec::new()) }
    }

    pub(super) fn push(&mut self, row: [Cell<'v>; N]) {
        for (column, cell) in self.columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of a statement with [`rows_of`].
    pub(super) fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect()
    }

    /// The same for a statement that is sent later.
    pub(super) fn into_params(self) -> Vec<Param<'v>> {
        self.columns.into_iter().map(param).collect()
    }
}

/// `SELECT ... FROM unnest(...)` over columns that are written "name type, name type". The rows are in the order of the first
/// column, so that all processes lock rows in one order.
pub(super) fn rows_of(columns: &str) -> String {
    let pairs = columns.split(',').map(|pair| pair.trim().split_once(' ').unwrap_or((pair, "bytea")));
    let (names, types): (Vec<_>, Vec<_>) = pairs.unzip();
    let arrays: Vec<_> = types.iter().enumerate().map(|(at, ty)| format!("${}::{ty}[]", at + 1)).collect();
    let names = names.join(", ");
    format!("SELECT {names} FROM unnest({}) AS rows ({names})", arrays.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_arrays_and_rows_again() {
        assert_eq!(
            rows_of("id uuid, n integer"),
            "SELECT id, n FROM unnest($1::uuid[], $2::integer[]) AS rows (id, n)"
        );
        let mut table = Table::<2>::new();
        assert!(table.is_empty());
        table.push([1_i64.into(), None::<i64>.into()]);
        assert!(!table.is_empty() && table.values().len() == 2);
    }

    #[test]
    fn a_number_that_does_not_fit_its_column_is_an_error() {
        let mut out = BytesMut::new();
        assert!(Cell::from(i64::MAX).to_sql_checked(&Type::INT4, &mut out).is_err());
        assert!(Cell::from(7_i64).to_sql_checked(&Type::INT4, &mut out).is_ok());
        assert!(Cell::from("text").to_sql_checked(&Type::INT8, &mut out).is_err(), "another type");
    }
}
