//! The repair of queues, leases and times, and what an operator does to a whole queue. One process at a time repairs.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};

use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::transaction::{Tx, commit};
use super::super::turns::{self, Turn};
use super::claim::STEP_MILLIS;
use super::missing_queues;
use crate::base::clock::Timestamp;
use crate::model::endpoint::QueueKey;
use crate::model::lease::LEASE_SLACK;
use crate::store::engine::PAUSED_LOOK;
use crate::store::{QueueOf, SetBack, Space, SpaceAsk, endpoint_histories};

/// PostgreSQL does not tell how much of its disk is free.
pub(super) async fn space(client: &impl GenericClient, ask: SpaceAsk) -> Result<Space, PostgresError> {
    let sql = "SELECT coalesce(sum(parked_bytes), 0)::bigint, (SELECT kept_bytes FROM store),
                      (SELECT coalesce(sum(notices), 0)::bigint FROM outbox)
               FROM queue WHERE parked_bytes > 0";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_one(&statement, &[]).await?;
    let bytes = |at| -> Result<u64, PostgresError> { Ok(u64::try_from(row.try_get::<_, i64>(at)?).unwrap_or(0)) };
    let sql = "SELECT team, target FROM queue WHERE parked_bytes > $1 ORDER BY parked_bytes DESC LIMIT 1000";
    let statement = client.prepare_cached(sql).await?;
    let most = i64::try_from(ask.queue_bytes).unwrap_or(i64::MAX);
    let full = client.query(&statement, &[&most]).await?;
    let full_queues = full.iter().filter_map(|row| QueueKey::read(row.get(0), row.get(1))).collect();
    let pending = match i64::try_from(ask.count_pending_upto).unwrap_or(i64::MAX) {
        0 => None,
        upto => {
            let sql = "SELECT count(*) FROM (SELECT 1 FROM pending LIMIT $1) AS counted";
            let row = client.query_one(&client.prepare_cached(sql).await?, &[&upto]).await?;
            Some(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
        }
    };
    let (parked_bytes, kept_bytes, notices) = (bytes(0)?, bytes(1)?, bytes(2)?);
    Ok(Space { parked_bytes, kept_bytes, notices, free_bytes: None, full_queues, pending })
}

pub(super) async fn newest_time(client: &impl GenericClient) -> Result<Option<Timestamp>, PostgresError> {
    let sql = "SELECT greatest(max(heartbeat), (SELECT max(at) FROM instance_pulse)) FROM instance";
    let row = client.query_one(sql, &[]).await?;
    Ok(row.try_get::<_, Option<i64>>(0)?.map(Timestamp::from_millis))
}

/// A row that was written while the clock was ahead has its times ahead by as much. Rows that were due that late for another
/// reason come earlier than planned.
pub(super) async fn set_back(client: &mut Object, back: &SetBack) -> Result<usize, PostgresError> {
    let by = i64::try_from(back.by.as_millis()).unwrap_or(i64::MAX);
    let (now, from) = (back.now.millis(), back.from.millis());
    let transaction = client.transaction().await?;
    turns::wait(&transaction, Turn::SetBack).await?;
    transaction.execute("UPDATE instance_pulse SET at = $1 WHERE at > $1", &[&now]).await?;
    for sql in [
        "UPDATE instance SET heartbeat = least(heartbeat, $1), started_at = least(started_at, $1)
         WHERE heartbeat > $1 OR started_at > $1",
        "UPDATE partition_offsets SET moved_at = $1 WHERE moved_at > $1",
    ] {
        transaction.execute(sql, &[&now]).await?;
    }
    transaction.execute(&endpoint_histories::set_back("$1"), &[&now]).await?;
    let sql = "UPDATE pending SET due = CASE WHEN due >= $2 THEN due - $1 ELSE due END,
                   lease_until = CASE WHEN lease_until >= $2 THEN lease_until - $1 ELSE lease_until END,
                   since = CASE WHEN since > $3 THEN since - $1 ELSE since END,
                   horizon = CASE WHEN since > $3 THEN horizon - $1 ELSE horizon END
               WHERE due >= $2 OR lease_until >= $2 OR since > $3";
    let rows = transaction.execute(sql, &[&by, &from, &now]).await?;
    let queues = "UPDATE queue SET next_at = next_at - $1 WHERE next_at >= $2";
    transaction.execute(queues, &[&by, &from]).await?;
    commit(transaction).await?;
    Ok(usize::try_from(rows).unwrap_or(usize::MAX))
}

/// What a look at all pending rows has found.
#[derive(Default)]
struct Wrong {
    queues: Vec<WrongQueue>,
    /// Numbers of queues that pending rows name and that have no row.
    missing: Vec<i64>,
}

/// A queue whose row does not agree with its pending rows.
struct WrongQueue {
    number: i64,
    /// When its first row is due.
    due: Option<i64>,
    /// What its sum of bytes lacks. It is as true later: whoever parks or ends rows changes the sum by as much.
    bytes: i64,
}

/// A queue that a claim has served, or passed over because it is paused, has its next time at most so long after now.
const NEXT_LOOK_MILLIS: i64 = STEP_MILLIS + PAUSED_LOOK.as_millis() as i64;

/// One pass over the pending rows. Millions of them take seconds, so it has the time of a write.
async fn look(transaction: &Tx<'_>, now: Timestamp) -> Result<Wrong, PostgresError> {
    let sql = "SELECT coalesce(queue.id, seen.queue), queue.id IS NULL, seen.due,
                      (coalesce(seen.bytes, 0) - coalesce(queue.parked_bytes, 0))::bigint
               FROM queue FULL JOIN (
                   SELECT queue, min(due) FILTER (WHERE token IS NULL) AS due, sum(octet_length(body.bytes)) AS bytes
                   FROM pending LEFT JOIN body ON body.id = pending.id GROUP BY queue
               ) AS seen ON seen.queue = queue.id
               WHERE queue.id IS NULL OR queue.parked_bytes <> coalesce(seen.bytes, 0)
                  OR (seen.due IS NOT NULL AND (queue.next_at IS NULL OR queue.next_at > greatest(seen.due, $1) + $2))";
    let statement = transaction.prepare_cached(sql).await?;
    let mut wrong = Wrong::default();
    for row in transaction.query(&statement, &[&now.millis(), &NEXT_LOOK_MILLIS]).await? {
        let number = row.try_get(0)?;
        if row.try_get(1)? {
            wrong.missing.push(number);
        } else {
            wrong.queues.push(WrongQueue { number, due: row.try_get(2)?, bytes: row.try_get(3)? });
        }
    }
    wrong.missing.truncate(missing_queues::AT_ONCE);
    Ok(wrong)
}

/// The most leases that one call frees.
const FREED_AT_ONCE: i64 = 10_000;

/// Frees leases that ran out: of attempts whose process died, or whose settle never came.
pub(super) async fn free_leases(
    store: &PostgresStore,
    client: &mut Object,
    lease: Duration,
    now: Timestamp,
) -> Result<usize, PostgresError> {
    // The clock of a server that was just promoted may be ahead of the earlier one's.
    if store.timeline.changed_within(lease.saturating_add(LEASE_SLACK)) {
        return Ok(0);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM pending WHERE token IS NOT NULL AND lease_until <= $1)";
    let statement = client.prepare_cached(sql).await?;
    if !client.query_one(&statement, &[&now.millis()]).await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let transaction = client.transaction().await?;
    if !turns::take(&transaction, Turn::Leases).await? {
        return Ok(0);
    }
    let queues = "SELECT id FROM queue WHERE id IN (
                      SELECT queue FROM pending WHERE token IS NOT NULL AND lease_until <= $1)
                  ORDER BY id FOR UPDATE";
    let locked = transaction.query(queues, &[&now.millis()]).await?;
    let locked = locked.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<i64>, PostgresError>>()?;
    let leases = "UPDATE pending SET token = NULL, lease_until = NULL FROM (
                      SELECT id FROM pending WHERE token IS NOT NULL AND lease_until <= $1 AND queue = ANY($2)
                      ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED) AS ended
                  WHERE pending.id = ended.id";
    let freed = transaction.execute(leases, &[&now.millis(), &locked, &FREED_AT_ONCE]).await?;
    transaction.execute("UPDATE queue SET next_at = 0 WHERE id = ANY($1)", &[&locked]).await?;
    commit(transaction).await?;
    Ok(usize::try_from(freed).unwrap_or(usize::MAX))
}

/// Repairs queues: those without a row get one, a next time that is missing or too late is set, and the bytes are put right. A time that is
/// too early does no harm; the next claim corrects it. The rows are looked at before any lock is taken, so that nobody waits for the look.
pub(super) async fn repair(
    store: &PostgresStore,
    client: &mut Object,
    queue_of: QueueOf,
    now: Timestamp,
) -> Result<(), PostgresError> {
    let transaction = client.transaction().await?;
    if !turns::take(&transaction, Turn::Sweep).await? {
        return Ok(());
    }
    let Wrong { queues, missing } = look(&transaction, now).await?;
    if queues.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let made = missing_queues::make(&transaction, &missing, queue_of, now).await?;
    let made_numbers: Vec<i64> = made.iter().map(|made| made.number).collect();
    let numbers: Vec<i64> = queues.iter().map(|queue| queue.number).collect();
    let all = [&numbers[..], &made_numbers].concat();
    transaction.query("SELECT id FROM queue WHERE id = ANY($1) ORDER BY id FOR UPDATE", &[&all]).await?;
    missing_queues::move_rows(&transaction, &made).await?;
    let due: Vec<Option<i64>> = queues.iter().map(|queue| queue.due).collect();
    let bytes: Vec<i64> = queues.iter().map(|queue| queue.bytes).collect();
    let sql = "UPDATE queue SET next_at = least(next_at, wrong.due), parked_bytes = greatest(0, parked_bytes + wrong.bytes)
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS wrong (id, due, bytes) WHERE queue.id = wrong.id";
    transaction.execute(sql, &[&numbers, &due, &bytes]).await?;
    if !made.is_empty() {
        // Rows came to them from other numbers.
        let sql = "UPDATE queue SET next_at = least(next_at, seen.due), parked_bytes = seen.bytes FROM (
                       SELECT queue.id, min(pending.due) FILTER (WHERE token IS NULL) AS due,
                              coalesce(sum(octet_length(body.bytes)), 0)::bigint AS bytes
                       FROM queue LEFT JOIN pending ON pending.queue = queue.id LEFT JOIN body ON body.id = pending.id
                       WHERE queue.id = ANY($1) GROUP BY queue.id) AS seen
                   WHERE queue.id = seen.id";
        transaction.execute(sql, &[&made_numbers]).await?;
    }
    commit(transaction).await?;
    if !made.is_empty() {
        store.numbers.forget_queues();
    }
    Ok(())
}

/// Makes rows of a queue due now that wait for a later time, the earliest first. The queue is locked before its rows; a row that
/// another transaction has locked is changed by that one.
pub(super) async fn retry_queue(
    client: &mut Object,
    queue: &QueueKey,
    at_most: usize,
    now: Timestamp,
) -> Result<usize, PostgresError> {
    let transaction = client.transaction().await?;
    let sql = "SELECT id FROM queue WHERE team = $1 AND target = $2 FOR UPDATE";
    let Some(row) = transaction.query_opt(sql, &[&&*queue.team, &queue.target.name()]).await? else { return Ok(0) };
    let (number, limit): (i64, i64) = (row.try_get(0)?, i64::try_from(at_most).unwrap_or(i64::MAX));
    let sql = "UPDATE pending SET due = $2 FROM (
                   SELECT id FROM pending WHERE queue = $1 AND token IS NULL AND due > $2
                   ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED) AS later
               WHERE pending.id = later.id";
    let changed = transaction.execute(sql, &[&number, &now.millis(), &limit]).await?;
    if changed > 0 {
        let sql = "UPDATE queue SET next_at = least(next_at, $2) WHERE id = $1";
        transaction.execute(sql, &[&number, &now.millis()]).await?;
    }
    commit(transaction).await?;
    Ok(usize::try_from(changed).unwrap_or(usize::MAX))
}
