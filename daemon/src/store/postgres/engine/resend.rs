//! A step of a job that sends many callbacks again: rounds are opened, and the job's cursor moves, in one transaction. The row of
//! the job is locked first, then queues and rows.

use deadpool_postgres::{GenericClient as _, Object};

use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::transaction::Tx;
use super::amend::{Asked, names_of};
use super::write::Work;
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment};
use crate::store::ResendStep;
use crate::store::resends::ResendCounts;

pub(super) async fn step(
    store: &PostgresStore,
    client: &mut Object,
    step: &ResendStep,
    now: Timestamp,
) -> Result<Option<ResendCounts>, PostgresError> {
    let rounds: Vec<_> = step
        .rounds
        .iter()
        .map(|(id, resend)| (*id, Amendment::Resend(Box::new(resend.clone())), &resend.body))
        .collect();
    let asked = rounds.iter().map(|(id, amendment, body)| Asked { id: *id, amendment, body: (*body).clone() });
    let asked: Vec<_> = asked.collect();
    let names = names_of(store, client, &asked, now).await?;
    let transaction = client.transaction().await?;
    if !is_held(&transaction, step).await? {
        return Ok(None);
    }
    let mut work = Work::new(store, &transaction, names, now);
    let amended = work.amend(&asked).await?;
    let opened = amended.iter().filter(|amended| **amended == Amended::Changed).count();
    let counts = step.counts(opened);
    move_cursor(&transaction, step, counts, now).await?;
    let kept = work.kept;
    kept.write(&transaction, store.keeping).await?;
    store.commit(transaction).await?;
    Ok(Some(counts))
}

/// Locks the row of the job. False if it is not this instance's, or stands elsewhere.
async fn is_held(transaction: &Tx<'_>, step: &ResendStep) -> Result<bool, PostgresError> {
    let sql = "SELECT 1 FROM resend_job WHERE id = $1 AND holder = $2 AND state = 'running'
                   AND cursor IS NOT DISTINCT FROM $3 FOR UPDATE";
    let statement = transaction.prepare_cached(sql).await?;
    let from = step.from.map(|id| id.as_bytes().to_vec());
    Ok(transaction.query_opt(&statement, &[&step.job, &step.instance.0, &from]).await?.is_some())
}

async fn move_cursor(
    transaction: &Tx<'_>,
    step: &ResendStep,
    counts: ResendCounts,
    now: Timestamp,
) -> Result<(), PostgresError> {
    let sql = "UPDATE resend_job SET cursor = $2, opened = opened + $3, busy = busy + $4, no_body = no_body + $5,
                                     refused = refused + $6, changed_at = $7,
                                     state = CASE WHEN $8 THEN 'done' ELSE state END WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    let to = step.to.map(|id| id.as_bytes().to_vec());
    let ResendCounts { opened, busy, no_body, refused } = counts;
    let sums = [opened, busy, no_body, refused].map(|sum| i64::try_from(sum).unwrap_or(i64::MAX));
    transaction
        .execute(&statement, &[&step.job, &to, &sums[0], &sums[1], &sums[2], &sums[3], &now.millis(), &step.is_last])
        .await?;
    Ok(())
}
