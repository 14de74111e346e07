//! Row 36: what is older than it is to be kept is deleted, in pieces. Settled rows of a day go with their day; the others are here.

use deadpool_postgres::Object;

use super::super::cells::Uuid;
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::numbers::USE_NOTED;
use super::super::transaction::{Tx, commit};
use super::super::turns::{self, Turn};
use super::days::first_id;
use super::{days, dead_letters, endpoints, kept};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::store::{PruneAsk, Pruned};

/// A callback with a pending row stays, and so does one that settled since the cutoff.
pub(super) async fn prune(store: &PostgresStore, client: &mut Object, ask: &PruneAsk) -> Result<Pruned, PostgresError> {
    let limit = i64::try_from(ask.at_most).unwrap_or(i64::MAX);
    let transaction = client.transaction().await?;
    if !turns::take(&transaction, Turn::Prune).await? {
        return Ok(Pruned::default());
    }
    days::look(&transaction).await?;
    let PrunedSettled { rows: settled, kept_bytes, next } = prune_settled(&transaction, ask, limit).await?;
    let dead_letters = dead_letters::prune(&transaction, ask.dead_letters_before, limit).await?;
    let sql = "DELETE FROM dedupe WHERE hash IN (SELECT hash FROM dedupe WHERE at < $1 LIMIT $2)";
    let event_ids = transaction.execute(sql, &[&ask.event_ids_before.millis(), &limit]).await?;
    // Settled rows name their queues, so queues go only after a whole pass over the settled rows.
    let mut queues = 0;
    if next.is_none() {
        endpoints::prune(&transaction, ask.settled_before).await?;
        queues = prune_queues(&transaction, ask, limit).await?;
    }
    if kept_bytes > 0 {
        kept::count(&transaction, kept_bytes.saturating_neg()).await?;
    }
    commit(transaction).await?;
    if queues > 0 {
        store.numbers.forget_queues();
    }
    Ok(Pruned { settled, dead_letters, event_ids: rows(event_ids), queues, more_days: false, next })
}

fn rows(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// What a piece took away, and where the next one begins.
#[derive(Default)]
struct PrunedSettled {
    rows: usize,
    kept_bytes: i64,
    next: Option<CallbackId>,
}

/// One piece: ids in order, after those of the last piece. Ids begin with the time of their event. Nothing settles before its
/// event, so ids from the cutoff on need no look, except those whose time lies ahead of now and is wrong.
async fn prune_settled(transaction: &Tx<'_>, ask: &PruneAsk, limit: i64) -> Result<PrunedSettled, PostgresError> {
    // Where days are dropped as a whole, only the other rows are left.
    let among = if days::are_ours(transaction).await? { "_other" } else { "" };
    let mut pruned = PrunedSettled::default();
    let mut left = limit;
    let mut after = ask.after.map_or(Uuid([0; 16]), Uuid::from);
    let ranges = [(Uuid([0; 16]), first_id(ask.settled_before)), (first_id(ask.now), Uuid([0xff; 16]))];
    for (begin, end) in ranges {
        after = after.max(begin);
        if after >= end {
            continue;
        }
        let piece = Piece { settled_before: ask.settled_before, after, end, among };
        let (looked_at, last) = piece.bounds(transaction, left).await?;
        let (deleted, freed) = piece.delete(transaction, last.unwrap_or(end)).await?;
        pruned.rows += deleted;
        pruned.kept_bytes += freed;
        if let Some(last) = last {
            return Ok(PrunedSettled { next: Some(last.into()), ..pruned });
        }
        left -= looked_at;
    }
    Ok(pruned)
}

struct Piece {
    settled_before: Timestamp,
    after: Uuid,
    end: Uuid,
    /// The end of the tables' names.
    among: &'static str,
}

impl Piece {
    /// How many rows the piece has, up to the limit, and the last of them if the limit ends it.
    async fn bounds(&self, transaction: &Tx<'_>, limit: i64) -> Result<(i64, Option<Uuid>), PostgresError> {
        let among = self.among;
        let sql = format!("SELECT id FROM settled{among} WHERE id > $1 AND id < $2 ORDER BY id LIMIT 1 OFFSET $3");
        let offset = limit.saturating_sub(1).max(0);
        if let Some(row) = transaction.query_opt(&sql, &[&self.after, &self.end, &offset]).await? {
            return Ok((limit, Some(row.try_get(0)?)));
        }
        let sql = format!("SELECT count(*) FROM settled{among} WHERE id > $1 AND id < $2");
        Ok((transaction.query_one(&sql, &[&self.after, &self.end]).await?.try_get(0)?, None))
    }

    /// Deletes rows, and gives their number and the bytes of the bodies that were kept of them. It locks the rows and then
    /// looks again whether they have a pending row, in a statement of its own.
    async fn delete(&self, transaction: &Tx<'_>, upto: Uuid) -> Result<(usize, i64), PostgresError> {
        let among = self.among;
        let old = format!(
            "SELECT id FROM settled{among} WHERE settled_at < $1 AND id > $2 AND id <= $3 ORDER BY id FOR UPDATE"
        );
        let found = transaction.query(&old, &[&self.settled_before.millis(), &self.after, &upto]).await?;
        let ids = found.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<Uuid>, PostgresError>>()?;
        let ended = "SELECT id FROM unnest($1::uuid[]) AS old (id)
                     WHERE NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = old.id)";
        let found = transaction.query(ended, &[&ids]).await?;
        let ids = found.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<Uuid>, PostgresError>>()?;
        transaction.execute(&format!("DELETE FROM attempt{among} WHERE id = ANY($1)"), &[&ids]).await?;
        let settled = transaction.execute(&format!("DELETE FROM settled{among} WHERE id = ANY($1)"), &[&ids]).await?;
        Ok((rows(settled), kept::forget(transaction, &ids).await?))
    }
}

/// Queues whose last use is older than every settled row but those with an open round, and that have no pending row.
async fn prune_queues(transaction: &Tx<'_>, ask: &PruneAsk, limit: i64) -> Result<usize, PostgresError> {
    // A row of a day may stay until its day goes.
    let oldest = days::there(transaction).await?.first().map(|day| day.begin());
    let needed_since = oldest.map_or(ask.settled_before, |oldest| oldest.min(ask.settled_before).minus(days::LATE));
    let unused_since = needed_since.minus(USE_NOTED).millis();
    let sql = "DELETE FROM queue WHERE id IN (
                   SELECT id FROM queue
                   WHERE used_at < $1 AND next_at IS NULL AND NOT paused AND rest_until <= $2
                     AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.queue = queue.id)
                     AND id NOT IN (SELECT settled.queue FROM pending JOIN settled ON settled.id = pending.id
                                    WHERE pending.round > 0)
                   LIMIT $3 FOR UPDATE SKIP LOCKED)";
    Ok(rows(transaction.execute(sql, &[&unused_since, &ask.now.millis(), &limit]).await?))
}
