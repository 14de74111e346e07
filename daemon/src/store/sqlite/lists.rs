//! What people ask: pages by id, newest event first, and the counts.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::rows::{self, Books};
use super::{Failure, SqliteStore, sources};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Unreadable};
use crate::model::event::{RecordRef, SourceKey};
use crate::model::settlement::{NumberedAttempt, Rows};
use crate::store::Answer;
use crate::store::reads::{BuriedLetter, CallbackFilter, Page, Reads, SourceRow, Totals};

impl Reads for SqliteStore {
    fn rows(&self, id: CallbackId) -> Answer<'_, Rows> {
        self.read(move |connection| rows::load(connection, &mut Books::default(), id))
    }

    fn attempts(&self, id: CallbackId) -> Answer<'_, Vec<NumberedAttempt>> {
        self.read(move |connection| rows::attempts(connection, id))
    }

    fn body(&self, id: CallbackId) -> Answer<'_, Option<Bytes>> {
        self.read(move |connection| {
            let body: Option<Vec<u8>> = connection
                .prepare_cached("SELECT bytes FROM body WHERE id = ?1")?
                .query_row([id.as_bytes()], |row| row.get(0))
                .optional()?;
            Ok(body.map(Bytes::from))
        })
    }

    fn callbacks(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Vec<(CallbackId, Rows)>> {
        self.read(move |connection| callbacks(connection, &filter, &page))
    }

    fn dead_letters(&self, task: Option<String>, page: Page) -> Answer<'_, Vec<BuriedLetter>> {
        self.read(move |connection| dead_letters(connection, task.as_deref(), &page))
    }

    fn dead_letter(&self, id: CallbackId) -> Answer<'_, Option<BuriedLetter>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!("{DEAD_LETTER} WHERE id = ?1"))?;
            let mut found = statement.query([id.as_bytes()])?;
            found.next()?.map(|row| dead_letter(connection, row)).transpose()
        })
    }

    fn sources(&self) -> Answer<'_, Vec<SourceRow>> {
        self.read(source_rows)
    }

    fn backlog(&self) -> Answer<'_, (u64, Option<Timestamp>)> {
        self.read(backlog)
    }

    fn totals(&self) -> Answer<'_, Totals> {
        self.read(|connection| {
            let (pending, oldest_due) = backlog(connection)?;
            let settled = connection
                .prepare("SELECT state, reason, count(*) FROM settled GROUP BY state, reason ORDER BY state, reason")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let by_reason: Vec<(String, u64)> = connection
                .prepare("SELECT reason, count(*) FROM dead_letter GROUP BY reason ORDER BY reason")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let dead_letters = by_reason
                .into_iter()
                .map(|(name, count)| Ok((reason(&name)?, count)))
                .collect::<Result<_, Failure>>()?;
            Ok(Totals { pending, oldest_due, settled, dead_letters })
        })
    }
}

fn callbacks(
    connection: &Connection,
    filter: &CallbackFilter,
    page: &Page,
) -> Result<Vec<(CallbackId, Rows)>, Failure> {
    let before = page.before.map(|id| *id.as_bytes());
    let mut conditions = String::from("(:before IS NULL OR id < :before)");
    let task = filter.task.as_ref().map(|task| task.as_bytes());
    let mut values: Vec<(&str, &dyn ToSql)> = vec![(":before", &before)];
    if let Some(team) = &filter.team {
        conditions.push_str(" AND team = :team");
        values.push((":team", team));
    }
    if let Some(task) = &task {
        conditions.push_str(" AND task = :task");
        values.push((":task", task));
    }
    let of = |table: &str, more: &str| {
        format!(
            "SELECT id FROM (SELECT id FROM {table} WHERE {conditions}{more} ORDER BY id DESC LIMIT {})",
            page.limit
        )
    };
    let sql = match filter.state.as_deref() {
        Some("pending") => of("pending", ""),
        Some(state) => {
            values.push((":state", state_value(state)?));
            of("settled", " AND state = :state")
        }
        None => format!("{} UNION {}", of("pending", ""), of("settled", "")),
    };
    let ids: Vec<CallbackId> = connection
        .prepare_cached(&format!("SELECT id FROM ({sql}) ORDER BY id DESC LIMIT {}", page.limit))?
        .query_map(&values[..], |row| row.get::<_, [u8; 16]>(0).map(CallbackId::from_bytes))?
        .collect::<rusqlite::Result<_>>()?;
    let mut books = Books::default();
    ids.into_iter().map(|id| Ok((id, rows::load(connection, &mut books, id)?))).collect()
}

fn state_value(state: &str) -> Result<&'static &'static str, Failure> {
    ["delivered", "exhausted", "abandoned"]
        .iter()
        .find(|known| **known == state)
        .ok_or_else(|| Failure::Refused(format!("no state {state:?}")))
}

const DEAD_LETTER: &str = "SELECT id, src, off, record_at, reason, detail, team, task, event_id, value, value_len, buried_at FROM dead_letter";

fn dead_letters(connection: &Connection, task: Option<&str>, page: &Page) -> Result<Vec<BuriedLetter>, Failure> {
    let before = page.before.map(|id| *id.as_bytes());
    let mut statement = connection.prepare_cached(&format!(
        "{DEAD_LETTER} WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR task = ?2) ORDER BY id DESC LIMIT {}",
        page.limit
    ))?;
    let mut found = statement.query(params![before, task.map(str::as_bytes)])?;
    let mut letters = Vec::new();
    while let Some(row) = found.next()? {
        letters.push(dead_letter(connection, row)?);
    }
    Ok(letters)
}

fn dead_letter(connection: &Connection, row: &rusqlite::Row<'_>) -> Result<BuriedLetter, Failure> {
    let text = |index: usize| -> rusqlite::Result<Option<Box<str>>> {
        let bytes: Option<Vec<u8>> = row.get(index)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into_boxed_str()))
    };
    let letter = DeadLetter {
        id: CallbackId::from_bytes(row.get(0)?),
        record: RecordRef {
            source: Books::default().source_name(connection, row.get(1)?)?,
            offset: row.get(2)?,
            timestamp: row.get(3)?,
        },
        reason: reason(&row.get::<_, String>(4)?)?,
        detail: row.get(5)?,
        team: text(6)?,
        task_id: text(7)?,
        event_id: text(8)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(9)?),
        value_len: row.get(10)?,
    };
    Ok(BuriedLetter { letter, buried_at: Timestamp::from_millis(row.get(11)?) })
}

fn reason(name: &str) -> Result<Unreadable, Failure> {
    Unreadable::parse(name).ok_or(Failure::Corrupt("a dead letter's reason"))
}

fn source_rows(connection: &Connection) -> Result<Vec<SourceRow>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT cluster, topic, partition, epoch, owner, moved_at, done_upto, seen_upto, last_off, last_hash
         FROM source ORDER BY cluster, topic, partition",
    )?;
    let rows = statement.query_map([], |row| {
        let (cluster, topic): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(SourceRow {
            source: SourceKey { cluster: cluster.into(), topic: topic.into(), partition: row.get(2)? },
            epoch: row.get(3)?,
            owner: row.get(4)?,
            moved_at: Timestamp::from_millis(row.get(5)?),
            reached: sources::reached(row, 6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn backlog(connection: &Connection) -> Result<(u64, Option<Timestamp>), Failure> {
    let pending = connection.prepare_cached("SELECT count(*) FROM pending")?.query_row([], |row| row.get(0))?;
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT min(due) FROM pending WHERE token IS NULL")?
        .query_row([], |row| row.get(0))?;
    Ok((pending, oldest.map(Timestamp::from_millis)))
}
