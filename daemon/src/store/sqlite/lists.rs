//! What people ask: pages by id, newest event first, and the counts.

use std::time::Instant;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, IdCache};
use super::{Failure, SqliteStore, partition_offsets, scan};
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Unreadable};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::settlement::{NumberedAttempt, Rows};
use crate::store::Answer;
use crate::store::reads::{
    BuriedLetter, CallbackFilter, DeadLetterFilter, Found, InstanceEnd, InstanceRow, Page, PartitionOffsets, QueueAsk,
    QueueRow, Queues, Reads, Totals,
};

impl Reads for SqliteStore {
    fn rows(&self, id: CallbackId) -> Answer<'_, Rows> {
        self.ask(move |connection| rows::load(connection, &mut IdCache::default(), id))
    }

    fn attempts(&self, id: CallbackId) -> Answer<'_, Vec<NumberedAttempt>> {
        self.ask(move |connection| rows::attempts(connection, id))
    }

    fn last_statuses(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<u16>>> {
        self.ask(move |connection| {
            let sql = "SELECT status FROM attempt WHERE id = ?1 ORDER BY n DESC LIMIT 1";
            let mut statement = connection.prepare_cached(sql)?;
            let status = |id: &CallbackId| -> rusqlite::Result<Option<u16>> {
                Ok(statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?.flatten())
            };
            Ok(ids.iter().map(status).collect::<rusqlite::Result<_>>()?)
        })
    }

    fn body(&self, id: CallbackId) -> Answer<'_, Option<Bytes>> {
        self.ask(move |connection| {
            let body: Option<Vec<u8>> = connection
                .prepare_cached("SELECT bytes FROM body WHERE id = ?1")?
                .query_row([id.as_bytes()], |row| row.get(0))
                .optional()?;
            Ok(body.map(Bytes::from))
        })
    }

    fn callbacks(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<(CallbackId, Rows)>> {
        self.ask(move |connection| callbacks(connection, &filter, &page))
    }

    fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Answer<'_, Found<BuriedLetter>> {
        self.ask(move |connection| dead_letters(connection, &filter, &page))
    }

    fn nameless_dead_letters(&self, at_most: usize) -> Answer<'_, usize> {
        self.ask(move |connection| {
            let sql = "SELECT count(*) FROM (SELECT 1 FROM dead_letter INDEXED BY dead_letter_nameless WHERE task IS NULL LIMIT ?1)";
            Ok(connection.prepare_cached(sql)?.query_row([at_most], |row| row.get(0))?)
        })
    }

    fn dead_letter(&self, id: CallbackId) -> Answer<'_, Option<BuriedLetter>> {
        self.ask(move |connection| {
            let mut statement = connection.prepare_cached(&format!("{DEAD_LETTER} WHERE id = ?1"))?;
            let mut found = statement.query([id.as_bytes()])?;
            found.next()?.map(|row| dead_letter(connection, row)).transpose()
        })
    }

    fn offsets(&self) -> Answer<'_, Vec<PartitionOffsets>> {
        self.ask(offsets_rows)
    }

    fn queues(&self, ask: QueueAsk) -> Answer<'_, Vec<QueueRow>> {
        self.ask(move |connection| queues(connection, &ask))
    }

    fn instances(&self, at_most: usize) -> Answer<'_, Vec<InstanceRow>> {
        self.ask(move |connection| {
            let sql = "SELECT id, started_at, heartbeat, clean FROM instance ORDER BY id DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([at_most], |row| {
                Ok(InstanceRow {
                    id: row.get(0)?,
                    started_at: Timestamp::from_millis(row.get(1)?),
                    seen_at: Timestamp::from_millis(row.get(2)?),
                    end: match row.get(3)? {
                        0 => None,
                        1 => Some(InstanceEnd::Clean),
                        _ => Some(InstanceEnd::Died),
                    },
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn backlog(&self) -> Answer<'_, (u64, Option<Timestamp>)> {
        self.ask(backlog)
    }

    fn totals(&self) -> Answer<'_, Totals> {
        self.ask(|connection| {
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
) -> Result<Found<(CallbackId, Rows)>, Failure> {
    let found = scan::scan(connection, filter, page)?;
    let mut books = IdCache::default();
    let docs = found.docs.into_iter().map(|id| Ok((id, rows::load(connection, &mut books, id)?)));
    Ok(Found { docs: docs.collect::<Result<_, Failure>>()?, next: found.next })
}

const DEAD_LETTER: &str = "SELECT id, partition, off, record_at, reason, detail, team, task, event_id, value, value_len, buried_at FROM dead_letter";
/// The same with the begin of the value: a page of whole ones would be megabytes.
const DEAD_LETTER_IN_LIST: &str = "SELECT id, partition, off, record_at, reason, detail, team, task, event_id, substr(value, 1, 256), value_len, buried_at FROM dead_letter";

/// A page of dead letters. What no index answers is decided row by row, within the time of a page.
fn dead_letters(
    connection: &Connection,
    filter: &DeadLetterFilter,
    page: &Page,
) -> Result<Found<BuriedLetter>, Failure> {
    let deadline = Instant::now() + scan::BUDGET;
    let (floor, ceiling) = scan::bounds(filter.since, filter.until, page.before);
    let task = filter.task.as_deref().map_or(Value::Null, |task| Value::Blob(task.as_bytes().to_vec()));
    let (index, of_task) = match filter.task {
        Some(_) => ("INDEXED BY dead_letter_task", "task = ?3"),
        None => ("", "?3 IS NULL"),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, team, reason FROM dead_letter {index} WHERE {of_task} AND id >= ?1 AND id < ?2 ORDER BY id DESC"
    ))?;
    let mut whole = connection.prepare_cached(&format!("{DEAD_LETTER_IN_LIST} WHERE id = ?1"))?;
    let mut rows = statement.query(params![floor, ceiling, task])?;
    let mut found = Found { docs: Vec::new(), next: None };
    let mut looked = 0_usize;
    while let Some(row) = rows.next()? {
        let id: [u8; 16] = row.get(0)?;
        let team: Option<Vec<u8>> = row.get(1)?;
        let matches = filter.team.as_ref().is_none_or(|own| team.as_deref() == Some(own.as_bytes()))
            && filter.reason.is_none_or(|reason| row.get_ref(2).is_ok_and(|name| name.as_str() == Ok(reason.name())));
        if matches {
            if found.docs.len() == page.limit {
                found.next = found.docs.last().map(|letter: &BuriedLetter| letter.letter.id);
                return Ok(found);
            }
            let mut letters = whole.query([id])?;
            found.docs.extend(letters.next()?.map(|row| dead_letter(connection, row)).transpose()?);
        }
        looked += 1;
        if looked.is_multiple_of(scan::STRIDE) && Instant::now() >= deadline {
            found.next = Some(CallbackId::from_bytes(id));
            return Ok(found);
        }
    }
    Ok(found)
}

fn dead_letter(connection: &Connection, row: &rusqlite::Row<'_>) -> Result<BuriedLetter, Failure> {
    let text = |index: usize| -> rusqlite::Result<Option<Box<str>>> {
        let bytes: Option<Vec<u8>> = row.get(index)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into_boxed_str()))
    };
    let letter = DeadLetter {
        id: CallbackId::from_bytes(row.get(0)?),
        record: RecordRef {
            partition: IdCache::default().partition_key(connection, row.get(1)?)?,
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

fn offsets_rows(connection: &Connection) -> Result<Vec<PartitionOffsets>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT cluster, topic, partition, epoch, owner, moved_at, watermark, seen_upto, last_off, last_hash
         FROM partition_offsets ORDER BY cluster, topic, partition",
    )?;
    let rows = statement.query_map([], |row| {
        let (cluster, topic): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(PartitionOffsets {
            partition: PartitionKey { cluster: cluster.into(), topic: topic.into(), number: row.get(2)? },
            epoch: row.get(3)?,
            owner: row.get(4)?,
            moved_at: Timestamp::from_millis(row.get(5)?),
            watermark: partition_offsets::watermark(row, 6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Queues whose rows say that something of theirs waits or is under way.
fn queues(connection: &Connection, ask: &QueueAsk) -> Result<Vec<QueueRow>, Failure> {
    let sql = |condition: &str| {
        format!(
            "SELECT queue.team, target, parked_bytes,
                    (SELECT count(*) FROM (SELECT 1 FROM pending WHERE pending.queue = queue.id AND token IS NULL LIMIT ?1)),
                    first.due, first.last_outcome, first.tries
             FROM queue LEFT JOIN pending AS first ON first.id =
                 (SELECT id FROM pending WHERE pending.queue = queue.id AND token IS NULL ORDER BY due LIMIT 1) WHERE (next_at IS NOT NULL OR parked_bytes > 0) AND {condition}"
        )
    };
    let read = |row: &rusqlite::Row<'_>| {
        Ok(QueueRow {
            team: row.get(0)?,
            target: row.get(1)?,
            parked_bytes: row.get(2)?,
            pending: row.get(3)?,
            oldest_due: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
            last_outcome: row.get::<_, Option<String>>(5)?.and_then(|name| Outcome::parse(&name)),
            tries: row.get::<_, Option<u32>>(6)?.unwrap_or(0),
        })
    };
    let count = ask.count_upto;
    let mut found = Vec::new();
    match &ask.which {
        Queues::From { team, at_most } => {
            let mut statement =
                connection.prepare_cached(&sql("queue.team >= ?2 ORDER BY queue.team, target LIMIT ?3"))?;
            let rows = statement.query_map(params![count, team.as_deref().unwrap_or_default(), at_most], read)?;
            found.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Queues::Of(team) => {
            let mut statement = connection.prepare_cached(&sql("queue.team = ?2 ORDER BY target LIMIT 20000"))?;
            found.extend(statement.query_map(params![count, team], read)?.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Queues::These(queues) => {
            let mut statement = connection.prepare_cached(&sql("queue.team = ?2 AND target = ?3"))?;
            for (team, target) in queues {
                let rows = statement.query_map(params![count, team, target], read)?;
                found.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
            }
        }
    }
    Ok(found)
}

fn backlog(connection: &Connection) -> Result<(u64, Option<Timestamp>), Failure> {
    let pending = connection.prepare_cached("SELECT count(*) FROM pending")?.query_row([], |row| row.get(0))?;
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT min(due) FROM pending WHERE token IS NULL")?
        .query_row([], |row| row.get(0))?;
    Ok((pending, oldest.map(Timestamp::from_millis)))
}
