//! A database that a store is copied to, as the place to write to.
//!
//! Each piece of rows is one transaction, which moves the table's cursor in the table `store_copy`, too. So a copy that was broken off
//! goes on where it was. As long as that table is there, no daemon opens the database.

use std::collections::HashSet;
use std::sync::Arc;

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::cells::{Cell, rows_of};
use super::connection::PostgresStore;
use super::engine::days::{self, Day};
use super::error::PostgresError;
use super::migrations;
use super::presence::Role;
use super::schema;
use super::tools;
use super::transaction::Tx;
use super::url::PostgresUrl;
use crate::base::clock::{Clock, Timestamp};
use crate::model::callback::CallbackId;
use crate::store::copied::{self, Changed, CopiedTable, Kind, LARGE, LAST, Piece, STORE};
use crate::store::sql::Value;
use crate::store::{Migrate, OpenError, Options, StoreError};

/// Ended callbacks of so many days get tables of their own. Older ones are among the others.
const DAYS: i64 = 100;
/// These are made ahead.
const DAYS_AHEAD: i64 = 3;

pub(in crate::store) struct Target {
    store: PostgresStore,
    url: PostgresUrl,
    /// The days that are there, or can't be made.
    days: HashSet<Day>,
}

/// What the database holds.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Found {
    Nothing,
    /// An unfinished copy with this mark.
    Unfinished(String),
    /// The rows of a store.
    Store(String),
}

/// How far a table was copied.
#[derive(Debug)]
pub(in crate::store) struct Cursor {
    pub(in crate::store) after: Option<Vec<Value>>,
    pub(in crate::store) is_done: bool,
    pub(in crate::store) rows: u64,
}

impl Target {
    /// Connects, and is alone on the database. Nothing is changed.
    pub(in crate::store) async fn open(url: &PostgresUrl, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = PostgresStore::connect(url, Options::default(), Role::Alone, clock).await;
        Ok(Self { store: store.map_err(|error| error.of(url))?, url: url.clone(), days: HashSet::new() })
    }

    async fn client(&self) -> Result<Object, StoreError> {
        Ok(self.store.writer().await?)
    }

    pub(in crate::store) async fn found(&self) -> Result<Found, StoreError> {
        let client = self.client().await?;
        let is_there = async |table: &str| -> Result<bool, PostgresError> {
            let row = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?;
            Ok(row.try_get(0)?)
        };
        if is_there("store_copy").await? {
            let row =
                client.query_one("SELECT copy FROM store_copy LIMIT 1", &[]).await.map_err(PostgresError::from)?;
            return Ok(Found::Unfinished(row.get(0)));
        }
        if schema::read(&client).await.map_err(PostgresError::from)?.applied == 0 {
            return Ok(Found::Nothing);
        }
        for table in LARGE.iter().chain(&LAST).filter(|table| ![STORE, "admin_version"].contains(&table.name)) {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.name);
            if is_there(table.name).await?
                && client.query_one(&sql, &[]).await.map_err(PostgresError::from)?.get::<_, bool>(0)
            {
                let row = client.query_one("SELECT id FROM store", &[]).await.map_err(PostgresError::from)?;
                return Ok(Found::Store(row.get(0)));
            }
        }
        Ok(Found::Nothing)
    }

    /// Makes the schema, or brings it to that of this program.
    pub(in crate::store) async fn migrate(&self) -> Result<(), OpenError> {
        let mut client = self.store.writer().await.map_err(|error| error.at_open(&self.url))?;
        migrations::migrate(&mut client, &self.url, Migrate::Auto, self.now()).await
    }

    fn now(&self) -> Timestamp {
        self.store.clock.now()
    }

    /// From now on it is an unfinished copy with this mark.
    pub(in crate::store) async fn begin(&self, copy: &str) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(PostgresError::from)?;
        let begin = async {
            let sql = "CREATE TABLE store_copy (copy text NOT NULL, name text PRIMARY KEY, cursor text,
                                                done boolean NOT NULL DEFAULT false, copied bigint NOT NULL DEFAULT 0)";
            transaction.batch_execute(sql).await?;
            let names: Vec<_> = LARGE.iter().map(|table| table.name).collect();
            let sql = "INSERT INTO store_copy (copy, name) SELECT $1, unnest($2::text[])";
            transaction.execute(sql, &[&copy, &names]).await.map(drop)
        };
        begin.await.map_err(PostgresError::from)?;
        Ok(self.store.commit(transaction).await?)
    }

    pub(in crate::store) async fn cursor(&self, table: &CopiedTable) -> Result<Cursor, StoreError> {
        let client = self.client().await?;
        let sql = "SELECT cursor, done, copied FROM store_copy WHERE name = $1";
        let row = client.query_one(sql, &[&table.name]).await.map_err(PostgresError::from)?;
        let after = row
            .get::<_, Option<String>>(0)
            .map(|cursor| copied::read(table, &cursor).ok_or(PostgresError::Corrupt("the cursor of a copy")));
        Ok(Cursor {
            after: after.transpose()?,
            is_done: row.get(1),
            rows: u64::try_from(row.get::<_, i64>(2)).unwrap_or(0),
        })
    }

    /// Writes the next rows of a table, and moves its cursor.
    pub(in crate::store) async fn write(&mut self, table: &CopiedTable, piece: &Piece) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        self.make_days(&mut client, table, &piece.rows).await;
        let transaction = client.transaction().await.map_err(PostgresError::from)?;
        insert(&transaction, table, &piece.rows).await?;
        let cursor = piece.last.as_deref().map(copied::written);
        let sql =
            "UPDATE store_copy SET cursor = coalesce($2, cursor), done = $3, copied = copied + $4 WHERE name = $1";
        let count = i64::try_from(piece.rows.len()).unwrap_or(i64::MAX);
        let moved = transaction.execute(sql, &[&table.name, &cursor, &piece.is_end, &count]).await;
        moved.map_err(PostgresError::from)?;
        Ok(self.store.commit(transaction).await?)
    }

    /// Writes rows anew that have changed. Doing it twice has the effect of once.
    pub(in crate::store) async fn replace(&mut self, changes: &[Changed]) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        for changed in changes {
            self.make_days(&mut client, changed.table, &changed.rows).await;
        }
        let transaction = client.transaction().await.map_err(PostgresError::from)?;
        for Changed { table, ids, rows } in changes.iter().filter(|changed| !changed.ids.is_empty()) {
            let (first, of) = table.first();
            let sql = format!("DELETE FROM {} WHERE {first} = ANY($1::{of}[])", table.name);
            let ids: Vec<Value> = ids.iter().map(|id| Value::Bytes(id.clone())).collect();
            let kind = table.kinds()[0];
            let cells = ids.iter().map(|id| cell(id, kind)).collect::<Result<Vec<_>, _>>()?;
            transaction.execute(&sql, &[&cells]).await.map_err(PostgresError::from)?;
            insert(&transaction, table, rows).await?;
        }
        Ok(self.store.commit(transaction).await?)
    }

    /// Tells the server's planner what is there now.
    pub(in crate::store) async fn analyze(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        let tables: Vec<_> = LARGE.iter().map(|table| table.name).collect();
        let sql = format!("SET statement_timeout = 0; ANALYZE {};", tables.join(", "));
        Ok(client.batch_execute(&sql).await.map_err(PostgresError::from)?)
    }

    /// Writes the tables that are copied as a whole, all in one transaction, which the reader `next` has to serve. Numbers go on above those
    /// that are taken, and the generation of the store rises.
    pub(in crate::store) async fn write_last(
        &self,
        mut next: impl FnMut(&CopiedTable, Option<&[Value]>) -> Result<Piece, StoreError>,
    ) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(PostgresError::from)?;
        let sql = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
        transaction.batch_execute(sql).await.map_err(PostgresError::from)?;
        for table in LAST.iter().rev() {
            let sql = format!("DELETE FROM {}", table.name);
            transaction.execute(&sql, &[]).await.map_err(PostgresError::from)?;
        }
        for table in &LAST {
            let mut last = None;
            loop {
                let piece = next(table, last.as_deref())?;
                insert(&transaction, table, &piece.rows).await?;
                if piece.is_end {
                    break;
                }
                last = piece.last;
            }
            if table.is_numbered {
                let name = table.name;
                let sql = format!(
                    "SELECT setval(pg_get_serial_sequence('{name}', 'id'), coalesce(max(id), 0) + 1, false) FROM {name}"
                );
                transaction.query_one(&sql, &[]).await.map_err(PostgresError::from)?;
            }
        }
        let risen = transaction.execute("UPDATE store SET generation = generation + 1", &[]).await;
        risen.map_err(PostgresError::from)?;
        Ok(self.store.commit(transaction).await?)
    }

    /// The number of rows of a table and the sums of its columns, as SQLite computes them, too. It reads the whole table.
    pub(in crate::store) async fn sums(&self, table: &CopiedTable) -> Result<Vec<i64>, StoreError> {
        let sum = |(name, kind): (&&str, &Kind)| match kind {
            Kind::Integer => format!("coalesce(sum({name} % 1000003), 0)::bigint"),
            Kind::Truth => format!("count(*) FILTER (WHERE {name})"),
            Kind::Id => format!("16 * count({name})"),
            Kind::Text | Kind::Bytes => format!("coalesce(sum(octet_length({name})), 0)::bigint"),
        };
        let sums: Vec<_> = table.names().iter().zip(&table.kinds()).map(sum).collect();
        let sql = format!("SELECT ARRAY[count(*), {}] FROM {}", sums.join(", "), table.name);
        let client = self.without_limit().await?;
        let row = client.query_one(&sql, &[]).await.map_err(PostgresError::from)?;
        Ok(row.try_get(0).map_err(PostgresError::from)?)
    }

    /// What does not fit together, as `store verify` finds it.
    pub(in crate::store) async fn misfits(&self) -> Result<Vec<String>, StoreError> {
        let client = self.without_limit().await?;
        Ok(tools::misfits(&client).await.map_err(PostgresError::from)?)
    }

    /// A connection that may read whole tables.
    async fn without_limit(&self) -> Result<Object, StoreError> {
        let client = self.client().await?;
        client.batch_execute("SET statement_timeout = 0").await.map_err(PostgresError::from)?;
        Ok(client)
    }

    /// The copy is a store now, which a daemon may open.
    pub(in crate::store) async fn finish(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        Ok(client.batch_execute("DROP TABLE store_copy").await.map_err(PostgresError::from)?)
    }

    /// Makes the days of these rows. Where that can't be done, their rows go to the other ones.
    async fn make_days(&mut self, client: &mut Object, table: &CopiedTable, rows: &[Vec<Value>]) {
        if !["settled", "attempt"].contains(&table.name) {
            return;
        }
        let today = Day::of(self.now());
        for row in rows {
            let Some(Value::Bytes(id)) = row.first() else { continue };
            let mut millis = [0; 8];
            millis[2..].copy_from_slice(id.get(..6).unwrap_or(&[0; 6]));
            let day = Day::of(Timestamp::from_millis(i64::from_be_bytes(millis)));
            if day.is_within(today, DAYS, DAYS_AHEAD)
                && self.days.insert(day)
                && let Err(error) = days::make(client, day).await
            {
                let error = StoreError::from(error);
                tracing::debug!(%error, "a day of ended callbacks can't be made");
            }
        }
    }
}

async fn insert(transaction: &Tx<'_>, table: &CopiedTable, rows: &[Vec<Value>]) -> Result<(), PostgresError> {
    if rows.is_empty() {
        return Ok(());
    }
    let (names, read) = (table.names().join(", "), rows_of(&table.typed()));
    let (also, value) = table.also.map(|(name, value)| (format!(", {name}"), format!(", {value}"))).unwrap_or_default();
    let name = table.name;
    let sql = format!(
        "INSERT INTO {name} ({names}{also}) OVERRIDING SYSTEM VALUE SELECT rows.*{value} FROM ({read}) AS rows"
    );
    let mut columns: Vec<Vec<Cell<'_>>> = Vec::new();
    for (at, kind) in table.kinds().into_iter().enumerate() {
        let column = rows.iter().map(|row| cell(row.get(at).unwrap_or(&Value::Null), kind));
        columns.push(column.collect::<Result<_, _>>()?);
    }
    let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
    let statement = transaction.prepare_cached(&sql).await?;
    transaction.execute(&statement, &values).await.map(drop).map_err(|error| {
        match StoreError::from(PostgresError::from(error)) {
            StoreError::Refused(why) => {
                let first = rows.first().map(|row| copied::written(&row[..table.key])).unwrap_or_default();
                PostgresError::Refused(format!("one of the rows of {name} from {first} on: {why}"))
            }
            other => PostgresError::Store(other),
        }
    })
}

/// A value of SQLite as the type that the column has on PostgreSQL.
fn cell(value: &Value, kind: Kind) -> Result<Cell<'_>, PostgresError> {
    let wrong = PostgresError::Corrupt("a value of another type than its column's");
    Ok(match (kind, value) {
        (_, Value::Null) => Cell::Null,
        (Kind::Id, Value::Bytes(bytes)) => {
            let id: [u8; 16] = bytes.as_slice().try_into().map_err(|_| wrong)?;
            Cell::Id(CallbackId::from_bytes(id))
        }
        (Kind::Integer, Value::Integer(number)) => Cell::Integer(*number),
        (Kind::Truth, Value::Integer(number)) => Cell::Bool(*number != 0),
        (Kind::Text, Value::Text(text)) => Cell::Text(text),
        (Kind::Bytes, Value::Bytes(bytes)) => Cell::Bytes(bytes),
        (Kind::Bytes, Value::Text(text)) => Cell::Bytes(text.as_bytes()),
        _ => return Err(wrong),
    })
}
