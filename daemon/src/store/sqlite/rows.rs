//! Between rows and the model: the columns, and the numbers that stand for sources and queues.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Failure;
use crate::base::clock::Timestamp;
use crate::model::attempt::{Attempt, Outcome};
use crate::model::callback::CallbackId;
use crate::model::endpoint::{CallbackUrl, QueueKey, QueueTarget};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::{Facts, Token};
use crate::model::retry::Progress;
use crate::model::settlement::{Ended, NumberedAttempt, Pending, Rows, Settled};
use crate::model::team::Mode;
use crate::store::Known;

/// Numbers of sources and queues, learned once: a callback's row names them by number.
#[derive(Default)]
pub(crate) struct IdCache {
    partitions: HashMap<PartitionKey, i64>,
    partition_keys: HashMap<i64, Arc<PartitionKey>>,
    queues: HashMap<QueueKey, i64>,
    queue_names: HashMap<i64, QueueKey>,
}

/// Queue numbers kept at hand; above it they are learned anew.
const BOOK_LIMIT: usize = 100_000;

impl IdCache {
    pub(super) fn partition_number(
        &mut self,
        connection: &Connection,
        key: &PartitionKey,
    ) -> Result<Option<i64>, Failure> {
        if let Some(number) = self.partitions.get(key) {
            return Ok(Some(*number));
        }
        let number: Option<i64> = connection
            .prepare_cached("SELECT id FROM partition_offsets WHERE cluster = ?1 AND topic = ?2 AND partition = ?3")?
            .query_row(params![&*key.cluster, &*key.topic, key.number], |row| row.get(0))
            .optional()?;
        if let Some(number) = number {
            self.partitions.insert(key.clone(), number);
        }
        Ok(number)
    }

    pub(super) fn partition_key(&mut self, connection: &Connection, number: i64) -> Result<Arc<PartitionKey>, Failure> {
        if let Some(name) = self.partition_keys.get(&number) {
            return Ok(Arc::clone(name));
        }
        let name = connection
            .prepare_cached("SELECT cluster, topic, partition FROM partition_offsets WHERE id = ?1")?
            .query_row([number], |row| {
                let (cluster, topic): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(Arc::new(PartitionKey { cluster: cluster.into(), topic: topic.into(), number: row.get(2)? }))
            })
            .optional()?
            .ok_or(Failure::Corrupt("a row names a partition that is not there"))?;
        self.partition_keys.insert(number, Arc::clone(&name));
        Ok(name)
    }

    /// The number of a queue, made where it is new.
    pub(super) fn queue_number(&mut self, connection: &Connection, key: &QueueKey) -> Result<i64, Failure> {
        if let Some(number) = self.queues.get(key) {
            return Ok(*number);
        }
        let target = key.target.name();
        connection
            .prepare_cached("INSERT INTO queue (team, target) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![&*key.team, target])?;
        let number: i64 = connection
            .prepare_cached("SELECT id FROM queue WHERE team = ?1 AND target = ?2")?
            .query_row(params![&*key.team, target], |row| row.get(0))?;
        if self.queues.len() >= BOOK_LIMIT {
            self.queues.clear();
        }
        self.queues.insert(key.clone(), number);
        Ok(number)
    }

    pub(super) fn queue_name(&mut self, connection: &Connection, number: i64) -> Result<QueueKey, Failure> {
        if let Some(key) = self.queue_names.get(&number) {
            return Ok(key.clone());
        }
        let (team, target): (String, String) = connection
            .prepare_cached("SELECT team, target FROM queue WHERE id = ?1")?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
            .ok_or(Failure::Corrupt("a row names a queue that is not there"))?;
        let target = QueueTarget::parse(&target).ok_or(Failure::Corrupt("a queue's target"))?;
        let key = QueueKey { team: team.into(), target };
        if self.queue_names.len() >= BOOK_LIMIT {
            self.queue_names.clear();
        }
        self.queue_names.insert(number, key.clone());
        Ok(key)
    }
}

pub(super) const FACTS: &str =
    "partition, off, record_at, team, task, event_id, event_type, queue, test, content_hash, builder";
const SETTLED: &str = "state, reason, attempts, status, outcome, round, first_at, settled_at, revision";
const PENDING: &str = "url, since, horizon, tries, attempts, due, token, lease_until, starts, last_outcome, round";
const FACT_COLUMNS: usize = 11;

/// Both rows of one callback.
pub(super) fn load(connection: &Connection, books: &mut IdCache, id: CallbackId) -> Result<Rows, Failure> {
    // Pending first: a callback moves from there to settled, so it can't be missed between the two reads.
    let pending = connection
        .prepare_cached(&format!("SELECT {FACTS}, {PENDING} FROM pending WHERE id = ?1"))?
        .query_row([id.as_bytes()], |row| Ok(read_pending(connection, books, id, row)))
        .optional()?
        .transpose()?;
    let settled = connection
        .prepare_cached(&format!("SELECT {FACTS}, {SETTLED} FROM settled WHERE id = ?1"))?
        .query_row([id.as_bytes()], |row| Ok(read_settled(connection, books, id, row)))
        .optional()?
        .transpose()?;
    Ok(Rows { settled, pending })
}

fn read_facts(
    connection: &Connection,
    books: &mut IdCache,
    id: CallbackId,
    row: &Row<'_>,
) -> Result<Arc<Facts>, Failure> {
    let team: String = row.get(3)?;
    let event_type: String = row.get(6)?;
    Ok(Arc::new(Facts {
        id,
        record: RecordRef {
            partition: books.partition_key(connection, row.get(0)?)?,
            offset: row.get(1)?,
            timestamp: row.get(2)?,
        },
        team: team.into(),
        task_id: text(row.get(4)?)?,
        event_id: row.get::<_, Option<Vec<u8>>>(5)?.map(text).transpose()?,
        event_type: event_type.into(),
        queue: books.queue_name(connection, row.get(7)?)?,
        mode: if row.get(8)? { Mode::Test } else { Mode::Live },
        content_hash: row.get(9)?,
        builder: row.get(10)?,
    }))
}

fn read_settled(
    connection: &Connection,
    books: &mut IdCache,
    id: CallbackId,
    row: &Row<'_>,
) -> Result<Settled, Failure> {
    let facts = read_facts(connection, books, id, row)?;
    let column = |index: usize| FACT_COLUMNS + index;
    let (state, reason): (String, Option<String>) = (row.get(column(0))?, row.get(column(1))?);
    Ok(Settled {
        facts,
        ended: Ended::parse(&state, reason.as_deref()).ok_or(Failure::Corrupt("a settled row's state"))?,
        attempts: row.get(column(2))?,
        status: row.get(column(3))?,
        outcome: outcome(&row.get::<_, String>(column(4))?)?,
        round: row.get(column(5))?,
        first_at: Timestamp::from_millis(row.get(column(6))?),
        settled_at: Timestamp::from_millis(row.get(column(7))?),
        revision: row.get(column(8))?,
    })
}

fn read_pending(
    connection: &Connection,
    books: &mut IdCache,
    id: CallbackId,
    row: &Row<'_>,
) -> Result<Pending, Failure> {
    let facts = read_facts(connection, books, id, row)?;
    let column = |index: usize| FACT_COLUMNS + index;
    let time = |index: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column(index))?.map(Timestamp::from_millis))
    };
    Ok(Pending {
        facts,
        url: row.get::<_, Option<Vec<u8>>>(column(0))?.map(text).transpose()?.map(|url| CallbackUrl::from(&*url)),
        progress: Progress {
            since: time(1)?,
            horizon: time(2)?,
            tries: row.get(column(3))?,
            attempts: row.get(column(4))?,
        },
        due: Timestamp::from_millis(row.get(column(5))?),
        token: row.get::<_, Option<i64>>(column(6))?.map(|token| Token(token.cast_unsigned())),
        lease_until: time(7)?,
        starts: row.get(column(8))?,
        last_outcome: row.get::<_, Option<String>>(column(9))?.map(|name| outcome(&name)).transpose()?,
        round: row.get(column(10))?,
    })
}

fn text(bytes: Vec<u8>) -> Result<Box<str>, Failure> {
    String::from_utf8(bytes).map(String::into_boxed_str).map_err(|_| Failure::Corrupt("an id that is not text"))
}

fn outcome(name: &str) -> Result<Outcome, Failure> {
    Outcome::parse(name).ok_or(Failure::Corrupt("an outcome's name"))
}

/// Inserts a settled row where the id is in neither table. False: it is, and nothing was written.
pub(super) fn insert_settled(connection: &Connection, books: &mut IdCache, row: &Settled) -> Result<bool, Failure> {
    let sql = const_insert(
        "settled",
        SETTLED,
        "SELECT",
        " WHERE NOT EXISTS (SELECT 1 FROM pending WHERE id = ?1) ON CONFLICT DO NOTHING",
    );
    settled_statement(connection, books, row, sql)
}

/// Writes a settled row over whatever stands there.
pub(super) fn replace_settled(connection: &Connection, books: &mut IdCache, row: &Settled) -> Result<(), Failure> {
    let sql = const_insert("settled", SETTLED, "REPLACE", "");
    settled_statement(connection, books, row, sql).map(|_| ())
}

fn settled_statement(connection: &Connection, books: &mut IdCache, row: &Settled, sql: &str) -> Result<bool, Failure> {
    let facts = &row.facts;
    let partition = partition_of(connection, books, facts)?;
    let queue = books.queue_number(connection, &facts.queue)?;
    let written = connection.prepare_cached(sql)?.execute(params![
        facts.id.as_bytes(),
        partition,
        facts.record.offset,
        facts.record.timestamp,
        &*facts.team,
        facts.task_id.as_bytes(),
        facts.event_id.as_ref().map(|id| id.as_bytes()),
        &*facts.event_type,
        queue,
        facts.mode == Mode::Test,
        facts.content_hash,
        facts.builder,
        row.ended.name(),
        row.ended.reason().map(|reason| reason.name()),
        row.attempts,
        row.status,
        row.outcome.name(),
        row.round,
        row.first_at.millis(),
        row.settled_at.millis(),
        row.revision,
    ])?;
    Ok(written == 1)
}

pub(super) fn replace_pending(connection: &Connection, books: &mut IdCache, row: &Pending) -> Result<i64, Failure> {
    let facts = &row.facts;
    let partition = partition_of(connection, books, facts)?;
    let queue = books.queue_number(connection, &facts.queue)?;
    connection.prepare_cached(const_insert("pending", PENDING, "REPLACE", ""))?.execute(params![
        facts.id.as_bytes(),
        partition,
        facts.record.offset,
        facts.record.timestamp,
        &*facts.team,
        facts.task_id.as_bytes(),
        facts.event_id.as_ref().map(|id| id.as_bytes()),
        &*facts.event_type,
        queue,
        facts.mode == Mode::Test,
        facts.content_hash,
        facts.builder,
        row.url.as_ref().map(|url| url.as_bytes()),
        row.progress.since.map(Timestamp::millis),
        row.progress.horizon.map(Timestamp::millis),
        row.progress.tries,
        row.progress.attempts,
        row.due.millis(),
        row.token.map(|token| token.0.cast_signed()),
        row.lease_until.map(Timestamp::millis),
        row.starts,
        row.last_outcome.map(Outcome::name),
        row.round,
    ])?;
    Ok(queue)
}

fn partition_of(connection: &Connection, books: &mut IdCache, facts: &Facts) -> Result<i64, Failure> {
    books
        .partition_number(connection, &facts.record.partition)?
        .ok_or_else(|| Failure::Refused(format!("no partition {}", facts.record.partition)))
}

/// The insert statements, each built once.
fn const_insert(table: &str, own: &str, kind: &str, tail: &str) -> &'static str {
    use std::sync::OnceLock;
    static INSERT_SETTLED: OnceLock<String> = OnceLock::new();
    static REPLACE_SETTLED: OnceLock<String> = OnceLock::new();
    static REPLACE_PENDING: OnceLock<String> = OnceLock::new();
    let slot = match (table, kind) {
        ("settled", "SELECT") => &INSERT_SETTLED,
        ("settled", _) => &REPLACE_SETTLED,
        _ => &REPLACE_PENDING,
    };
    slot.get_or_init(|| {
        let count = 1 + FACT_COLUMNS + own.split(", ").count();
        let values = (1..=count).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        if kind == "SELECT" {
            format!("INSERT INTO {table} (id, {FACTS}, {own}) SELECT {values}{tail}")
        } else {
            format!("INSERT OR REPLACE INTO {table} (id, {FACTS}, {own}) VALUES ({values})")
        }
    })
}

pub(super) fn insert_attempt(connection: &Connection, id: CallbackId, row: &NumberedAttempt) -> Result<(), Failure> {
    let attempt = &row.attempt;
    connection
        .prepare_cached(
            "INSERT INTO attempt (id, n, round, outcome, sent, status, begun_at, ms, peer, redialed, snippet)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id.as_bytes(),
            row.n,
            row.round,
            attempt.outcome.name(),
            attempt.sent,
            attempt.status,
            attempt.begun_at.millis(),
            i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX),
            attempt.peer.map(|peer| peer.to_string()),
            attempt.redialed,
            &attempt.snippet[..],
        ])?;
    Ok(())
}

pub(super) fn attempts(connection: &Connection, id: CallbackId) -> Result<Vec<NumberedAttempt>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT n, round, outcome, sent, status, begun_at, ms, peer, redialed, snippet FROM attempt WHERE id = ?1 ORDER BY n",
    )?;
    let mut rows = statement.query([id.as_bytes()])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(NumberedAttempt {
            n: row.get(0)?,
            round: row.get(1)?,
            attempt: Attempt {
                outcome: outcome(&row.get::<_, String>(2)?)?,
                sent: row.get(3)?,
                status: row.get(4)?,
                begun_at: Timestamp::from_millis(row.get(5)?),
                took: Duration::from_millis(row.get::<_, i64>(6)?.try_into().unwrap_or(0)),
                peer: row.get::<_, Option<String>>(7)?.and_then(|peer| peer.parse().ok()),
                redialed: row.get(8)?,
                snippet: Bytes::from(row.get::<_, Vec<u8>>(9)?),
            },
        });
    }
    Ok(attempts)
}

pub(super) fn known(connection: &Connection, ids: &[CallbackId]) -> Result<Vec<Option<Known>>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT content_hash FROM pending WHERE id = ?1 UNION ALL SELECT content_hash FROM settled WHERE id = ?1",
    )?;
    ids.iter()
        .map(|id| {
            let hash = statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
            Ok(hash.map(|content_hash| Known { content_hash }))
        })
        .collect()
}
