//! Claims of due rows: queues by their next time, and of each queue the rows by due time, up to the room of its lane. A queue
//! that was served goes to the back. A claim never waits for a row that another transaction has locked.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Object;

use super::super::cells::{Table, Uuid, rows_of};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::transaction::{Tx, commit};
use super::rows::{self, NumbersRead, id_of};
use crate::base::clock::Timestamp;
use crate::model::callback::{CallbackId, newest_builder};
use crate::model::lease::Token;
use crate::model::settlement::{Claim, Pending, apply_claim};
use crate::store::engine::PAUSED_LOOK;
use crate::store::versions::NEWER_LOOK;
use crate::store::{ClaimAsk, Claimed, SetAside};

/// Queues looked at in one claim, so that many full lanes can't make it long.
const QUEUES_AT_MOST: i64 = 1_000;
/// How long a queue or row that can't be read is skipped.
const SET_ASIDE: Duration = Duration::from_secs(60);

/// The next times of queues that claims write are ends of steps of a tenth of a second. So the row of a queue that is claimed from all the
/// time is written ten times a second and not at each claim. The end of a step is behind everything that is due in it, so a queue that was
/// served still goes to the back.
pub(super) const STEP_MILLIS: i64 = 100;

/// The end of the step in which a time lies, in SQL.
fn end_of_step(time: &str) -> String {
    format!("({time} + {}) / {STEP_MILLIS} * {STEP_MILLIS}", STEP_MILLIS - 1)
}

/// `$1` is the time now, and the queues of its whole step are looked at: a row that is due is never passed over because its queue has the end
/// of the step.
static DUE_QUEUES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT id, next_at <= $1 FROM queue WHERE next_at <= {} AND NOT paused AND rest_until <= $1
         ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        end_of_step("$1::bigint")
    )
});
/// When the first row of a queue may be claimed, or now. It is looked for under the queue's lock, and written if it changes.
static TO_THE_BACK: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE queue SET next_at = seen.next_at FROM (
             SELECT asked.id, (
                 SELECT {} FROM pending WHERE pending.queue = asked.id AND token IS NULL
                 HAVING min(due) IS NOT NULL) AS next_at
             FROM unnest($1::bigint[]) AS asked (id)) AS seen
         WHERE queue.id = seen.id AND queue.next_at IS DISTINCT FROM seen.next_at",
        end_of_step("greatest($2::bigint, min(due))")
    )
});
/// The same for queues with rows for a newer program, which leave their queue in front, but not for us to look at it at once.
static TO_THE_BACK_BESIDE_NEWER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE queue SET next_at = seen.next_at FROM (
             SELECT asked.id, least(
                 (SELECT {} FROM pending WHERE pending.queue = asked.id AND token IS NULL AND builder <= $4
                  HAVING min(due) IS NOT NULL),
                 (SELECT {} FROM pending WHERE pending.queue = asked.id AND token IS NULL
                  HAVING min(due) IS NOT NULL)) AS next_at
             FROM unnest($1::bigint[]) AS asked (id)) AS seen
         WHERE queue.id = seen.id AND queue.next_at IS DISTINCT FROM seen.next_at",
        end_of_step("greatest($2::bigint, min(due))"),
        end_of_step("greatest($3::bigint, min(due))")
    )
});
/// The due rows of queues, by the queues' order and by due time, at most so many of each queue, with builders up to this one.
const DUE_ROWS: &str = "SELECT due_row.id, asked.queue,
            (SELECT octet_length(bytes)::bigint FROM body WHERE body.id = due_row.id), due_row.builder
     FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (queue, room, place)
     CROSS JOIN LATERAL (
         SELECT id, due, builder FROM pending
         WHERE pending.queue = asked.queue AND token IS NULL AND due <= $3 AND builder <= $5
         ORDER BY due LIMIT asked.room FOR UPDATE SKIP LOCKED
     ) AS due_row
     ORDER BY asked.place, due_row.due LIMIT $4";

pub(super) async fn claim(
    store: &PostgresStore,
    client: &mut Object,
    ask: &ClaimAsk,
    now: Timestamp,
) -> Result<Claimed, PostgresError> {
    let transaction = client.transaction().await?;
    let mut claiming = Claiming {
        store,
        transaction: &transaction,
        ask,
        now,
        served: Vec::new(),
        newer: HashSet::new(),
        set_aside: SetAside::default(),
    };
    let rows = claiming.rows().await?;
    let set_aside = claiming.set_aside;
    let statement = transaction.prepare_cached("SELECT min(next_at) FROM queue WHERE NOT paused").await?;
    let next_at: Option<i64> = transaction.query_one(&statement, &[]).await?.try_get(0)?;
    commit(transaction).await?;
    Ok(Claimed { now, rows, next_at: next_at.map(Timestamp::from_millis), set_aside })
}

/// A due row, before it is taken.
struct Due {
    id: CallbackId,
    queue: i64,
    bytes: usize,
    builder: i32,
}

struct Claiming<'c> {
    store: &'c PostgresStore,
    transaction: &'c Tx<'c>,
    ask: &'c ClaimAsk,
    now: Timestamp,
    /// Queues that go to the back.
    served: Vec<i64>,
    /// Those of them with due rows for a newer program.
    newer: HashSet<i64>,
    set_aside: SetAside,
}

impl Claiming<'_> {
    async fn rows(&mut self) -> Result<Vec<(Pending, Bytes)>, PostgresError> {
        let due = self.due().await?;
        let taken = self.take(due).await?;
        self.to_the_back().await?;
        self.with_bodies(taken).await
    }

    /// Due rows in their order, as many as the claim may look at.
    async fn due(&mut self) -> Result<Vec<Due>, PostgresError> {
        let statement = self.transaction.prepare_cached(&DUE_QUEUES).await?;
        let found = self.transaction.query(&statement, &[&self.now.millis(), &QUEUES_AT_MOST]).await?;
        let (mut queues, mut rooms) = (Vec::new(), Vec::new());
        let at_most = i64::try_from(self.ask.at_most).unwrap_or(i64::MAX);
        for row in found {
            let (queue, is_due): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
            match self.store.numbers.queue_key(self.transaction, queue).await {
                Ok(key) if self.ask.paused.include(&key) && is_due => self.set_aside(queue, PAUSED_LOOK).await?,
                Ok(key) if self.ask.paused.include(&key) => {}
                Ok(key) => {
                    let room = self.ask.room.get(&key).copied().unwrap_or(self.ask.usual_room);
                    queues.push(queue);
                    rooms.push(i64::from(room).min(at_most));
                }
                Err(PostgresError::Corrupt(what)) => {
                    tracing::error!(queue, what, "a queue can't be read; its rows wait, and other queues go on");
                    self.set_aside.unreadable += 1;
                    self.set_aside(queue, SET_ASIDE).await?;
                }
                Err(other) => return Err(other),
            }
        }
        self.served.clone_from(&queues);
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let builder = i32::from(newest_builder());
        let due = self.due_rows(&queues, &rooms, i32::MAX).await?;
        self.newer = due.iter().filter(|row| row.builder > builder).map(|row| row.queue).collect();
        if self.newer.is_empty() {
            return Ok(due);
        }
        // Rows for a newer program must not take the places of others.
        self.set_aside.unknown_builder = due.iter().filter(|row| row.builder > builder).count();
        self.due_rows(&queues, &rooms, builder).await
    }

    /// The due rows with builders up to this one.
    async fn due_rows(&self, queues: &[i64], rooms: &[i64], builder: i32) -> Result<Vec<Due>, PostgresError> {
        let statement = self.transaction.prepare_cached(DUE_ROWS).await?;
        let at_most = i64::try_from(self.ask.at_most).unwrap_or(i64::MAX);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&queues, &rooms, &self.now.millis(), &at_most, &builder];
        let found = self.transaction.query(&statement, &values).await?;
        let read = |row: &tokio_postgres::Row| {
            let bytes: Option<i64> = row.try_get(2)?;
            let bytes = bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            Ok(Due { id: id_of(row)?, queue: row.try_get(1)?, bytes, builder: row.try_get(3)? })
        };
        found.iter().map(read).collect()
    }

    async fn set_aside(&self, queue: i64, wait: Duration) -> Result<(), PostgresError> {
        let statement = self.transaction.prepare_cached("UPDATE queue SET next_at = $2 WHERE id = $1").await?;
        self.transaction.execute(&statement, &[&queue, &self.now.plus(wait).millis()]).await?;
        Ok(())
    }

    /// Takes rows up to the bytes that the claim may have.
    async fn take(&mut self, due: Vec<Due>) -> Result<Vec<Pending>, PostgresError> {
        let ids: Vec<Uuid> = due.iter().map(|row| row.id.into()).collect();
        let mut found = rows::load(self.transaction, &self.store.numbers, &ids, &mut NumbersRead::default()).await?;
        let (mut taken, mut void, mut postponed) = (Vec::new(), Vec::new(), Vec::<Uuid>::new());
        let (mut token, mut bytes) = (self.ask.first_token.0, 0_usize);
        for row in due {
            let before = match found.remove(&row.id) {
                Some(Ok(rows)) => rows,
                Some(Err(what)) => {
                    tracing::error!(callback = %row.id, what, "a row can't be read; it waits, and other rows go on");
                    postponed.push(row.id.into());
                    continue;
                }
                None => continue,
            };
            let alone = taken.is_empty() && self.ask.takes_larger_body_alone;
            if bytes.saturating_add(row.bytes) > self.ask.bytes && !alone {
                // No other row is taken, so that this one is not passed over for ever, and its queue keeps its place in
                // front. So do the queues behind it.
                let from = self.served.iter().position(|queue| *queue == row.queue).unwrap_or(0);
                self.served.truncate(from);
                break;
            }
            let claim = Claim { token: Token(token), until: self.now.plus(self.ask.lease) };
            match apply_claim(&before, &claim).pending {
                None => void.push(row),
                Some(pending) => {
                    token = token.wrapping_add(1);
                    bytes = bytes.saturating_add(row.bytes);
                    taken.push(pending);
                }
            }
        }
        self.set_aside.unreadable += postponed.len();
        self.mark(&taken).await?;
        self.drop_void(&void).await?;
        self.postpone(&postponed).await?;
        Ok(taken)
    }

    async fn mark(&self, taken: &[Pending]) -> Result<(), PostgresError> {
        if taken.is_empty() {
            return Ok(());
        }
        let mut table = Table::<4>::new();
        for row in taken {
            table.push([
                row.facts.id.into(),
                row.token.map(|token| token.0.cast_signed()).into(),
                row.lease_until.map(Timestamp::millis).into(),
                row.starts.into(),
            ]);
        }
        let sql = format!(
            "UPDATE pending SET token = new.token, lease_until = new.lease_until, starts = new.starts
             FROM ({}) AS new WHERE pending.id = new.id",
            rows_of("id uuid, token bigint, lease_until bigint, starts integer")
        );
        let statement = self.transaction.prepare_cached(&sql).await?;
        self.transaction.execute(&statement, &table.values()).await?;
        Ok(())
    }

    async fn drop_void(&self, rows: &[Due]) -> Result<(), PostgresError> {
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id.into()).collect();
        let statement = self.transaction.prepare_cached("DELETE FROM pending WHERE id = ANY($1)").await?;
        self.transaction.execute(&statement, &[&ids]).await?;
        let queues: Vec<i64> = rows.iter().map(|row| row.queue).collect();
        let sql = "WITH gone AS (DELETE FROM body WHERE id = ANY($1) RETURNING id, octet_length(bytes) AS bytes),
                        freed AS (SELECT of.queue, sum(gone.bytes) AS bytes
                                  FROM unnest($1::uuid[], $2::bigint[]) AS of (id, queue) JOIN gone USING (id) GROUP BY of.queue)
                   UPDATE queue SET parked_bytes = greatest(0, parked_bytes - freed.bytes) FROM freed WHERE queue.id = freed.queue";
        let statement = self.transaction.prepare_cached(sql).await?;
        self.transaction.execute(&statement, &[&ids, &queues]).await?;
        Ok(())
    }

    async fn postpone(&self, ids: &[Uuid]) -> Result<(), PostgresError> {
        if !ids.is_empty() {
            let statement = self.transaction.prepare_cached("UPDATE pending SET due = $2 WHERE id = ANY($1)").await?;
            self.transaction.execute(&statement, &[&ids, &self.now.plus(SET_ASIDE).millis()]).await?;
        }
        Ok(())
    }

    /// A queue without room goes to the back, too, so that it does not block the others.
    async fn to_the_back(&self) -> Result<(), PostgresError> {
        if self.served.is_empty() {
            return Ok(());
        }
        let (newer, known): (Vec<i64>, Vec<i64>) =
            self.served.iter().copied().partition(|queue| self.newer.contains(queue));
        let statement = self.transaction.prepare_cached(&TO_THE_BACK).await?;
        self.transaction.execute(&statement, &[&known, &self.now.millis()]).await?;
        if newer.is_empty() {
            return Ok(());
        }
        let statement = self.transaction.prepare_cached(&TO_THE_BACK_BESIDE_NEWER).await?;
        let (now, later) = (self.now.millis(), self.now.plus(NEWER_LOOK).millis());
        self.transaction.execute(&statement, &[&newer, &now, &later, &i32::from(newest_builder())]).await?;
        Ok(())
    }

    async fn with_bodies(&self, taken: Vec<Pending>) -> Result<Vec<(Pending, Bytes)>, PostgresError> {
        let ids: Vec<Uuid> = taken.iter().map(|row| row.facts.id.into()).collect();
        let mut bodies: HashMap<CallbackId, Bytes> = HashMap::new();
        if !ids.is_empty() {
            let statement = self.transaction.prepare_cached("SELECT id, bytes FROM body WHERE id = ANY($1)").await?;
            for row in self.transaction.query(&statement, &[&ids]).await? {
                bodies.insert(id_of(&row)?, Bytes::copy_from_slice(row.try_get(1)?));
            }
        }
        let with_body = |row: Pending| {
            let body = bodies.remove(&row.facts.id).unwrap_or_default();
            (row, body)
        };
        Ok(taken.into_iter().map(with_body).collect())
    }
}
