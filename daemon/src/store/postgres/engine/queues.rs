//! The rows of queues, as a batch changes them.

use super::super::cells::{Table, Uuid, param, rows_of};
use super::super::numbers::USE_NOTED;
use super::super::pipeline::Pipeline;
use crate::base::clock::Timestamp;
use crate::store::queue_changes::QueueChanges;

/// Locks these queues, and those of the pending rows of these callbacks: a round may wait in another one than its callback did.
pub(super) fn lock(first: &mut Pipeline<'_>, queues: Vec<i64>, ids: &[Uuid]) {
    let sql = "SELECT id FROM queue WHERE id IN (
                   SELECT unnest($1::bigint[]) UNION SELECT queue FROM pending WHERE id = ANY($2) AND round > 0)
               ORDER BY id FOR UPDATE";
    first.push(sql, vec![param(queues), param(ids.to_vec())]);
}

/// Next times come earlier, and bytes are added.
pub(super) fn raise(last: &mut Pipeline<'_>, changes: &QueueChanges) {
    if changes.is_empty() {
        return;
    }
    let mut table = Table::<3>::new();
    for (queue, due, bytes) in changes.iter() {
        table.push([queue.into(), due.into(), bytes.into()]);
    }
    let sql = format!(
        "UPDATE queue SET next_at = CASE WHEN new.due IS NULL THEN next_at ELSE least(next_at, new.due) END,
                          parked_bytes = greatest(0, parked_bytes + new.bytes)
         FROM ({}) AS new WHERE queue.id = new.id",
        rows_of("id bigint, due bigint, bytes bigint")
    );
    last.push(sql, table.into_params());
}

/// Deletes pending rows with their bodies, each with the number of its queue, which has more room then.
pub(super) fn delete_pending(last: &mut Pipeline<'_>, ended: &[(Uuid, i64)]) {
    if ended.is_empty() {
        return;
    }
    let (ids, queues): (Vec<Uuid>, Vec<i64>) = ended.iter().copied().unzip();
    last.push("DELETE FROM pending WHERE id = ANY($1)", vec![param(ids.clone())]);
    let sql = "WITH gone AS (
                   DELETE FROM body USING unnest($1::uuid[], $2::bigint[]) AS ended (id, queue_id)
                   WHERE body.id = ended.id RETURNING queue_id, octet_length(bytes)::bigint AS freed)
               UPDATE queue SET parked_bytes = greatest(0, parked_bytes - sums.freed)
               FROM (SELECT queue_id, sum(freed)::bigint AS freed FROM gone GROUP BY queue_id) AS sums
               WHERE queue.id = sums.queue_id";
    last.push(sql, vec![param(ids), param(queues)]);
}

/// A settled row that changed keeps its queue for as long as itself.
pub(super) fn note_use(last: &mut Pipeline<'_>, queues: Vec<i64>, now: Timestamp) {
    if queues.is_empty() {
        return;
    }
    let sql = "UPDATE queue SET used_at = $2 WHERE id = ANY($1) AND used_at < $3";
    last.push(sql, vec![param(queues), param(now.millis()), param(now.minus(USE_NOTED).millis())]);
}
