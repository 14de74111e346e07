//! A step of a job that sends many callbacks again: rounds are opened, and the job's cursor moves, in one transaction. The row of
//! the job is locked first, then queues and rows.

use deadpool_postgres::Object;

use super::super::cells::param;
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::pipeline::{Pipeline, Place};
use super::super::transaction::Open;
use super::amend::{Amendments, Asked, ids_of, names_of};
use super::work::{Work, finish};
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
    let mut work = Work::new(store, names_of(store, client, &asked, now).await?, now);
    let mut first = Pipeline::new();
    let job = lock_job(&mut first, step);
    let rows = work.lock(&mut first, &ids_of(&asked));
    let (transaction, mut answers) = Open::begin(client, first).await?;
    if answers.take(job).is_empty() {
        return Ok(None);
    }
    let found = work.found(&transaction, &mut answers, rows).await?;
    let amendments = Amendments::of(&asked, found, now);
    let opened = amendments.answers.iter().filter(|answer| **answer == Amended::Changed).count();
    let counts = step.counts(opened);
    let mut last = Pipeline::new();
    amendments.write(&mut work, &mut last)?;
    move_cursor(&mut last, step, counts, now);
    finish(store, transaction, last, work.kept).await?;
    Ok(Some(counts))
}

/// Locks the row of the job. It is not found if it is not this instance's, or stands elsewhere.
fn lock_job(first: &mut Pipeline<'_>, step: &ResendStep) -> Place {
    let sql = "SELECT 1 FROM resend_job WHERE id = $1 AND holder = $2 AND state = 'running'
                   AND cursor IS NOT DISTINCT FROM $3 FOR UPDATE";
    let from = step.from.map(|id| id.as_bytes().to_vec());
    first.push(sql, vec![param(step.job.clone()), param(step.instance.0), param(from)])
}

fn move_cursor(last: &mut Pipeline<'_>, step: &ResendStep, counts: ResendCounts, now: Timestamp) {
    let sql = "UPDATE resend_job SET cursor = $2, opened = opened + $3, busy = busy + $4, no_body = no_body + $5,
                                     refused = refused + $6, changed_at = $7,
                                     state = CASE WHEN $8 THEN 'done' ELSE state END WHERE id = $1";
    let to = step.to.map(|id| id.as_bytes().to_vec());
    let ResendCounts { opened, busy, no_body, refused } = counts;
    let mut params = vec![param(step.job.clone()), param(to)];
    params.extend([opened, busy, no_body, refused].map(|sum| param(i64::try_from(sum).unwrap_or(i64::MAX))));
    params.extend([param(now.millis()), param(step.is_last)]);
    last.push(sql, params);
}
