//! A step of a job that sends many callbacks again: rounds are opened, and the job's cursor moves, in one transaction.

use rusqlite::{Connection, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::amend::Amending;
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment};
use crate::model::keeping::Keeping;
use crate::model::notice::Notices;
use crate::store::ResendStep;
use crate::store::resends::ResendCounts;

pub(super) fn step(
    connection: &Connection,
    ids: &mut IdCache,
    keeping: Keeping,
    step: &ResendStep,
    now: Timestamp,
) -> Result<Option<ResendCounts>, SqliteError> {
    let runs: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM resend_job WHERE id = ?1 AND holder = ?2 AND state = 'running' AND cursor IS ?3)",
        )?
        .query_row(params![step.job, step.instance.0, step.from.map(|id| *id.as_bytes())], |row| row.get(0))?;
    if !runs {
        return Ok(None);
    }
    // A round that opens has nothing to tell.
    let mut amending = Amending::new(connection, ids, (keeping, Notices::default()), now);
    let mut opened = 0;
    for (id, resend) in &step.rounds {
        let amended = amending.amend(*id, &Amendment::Resend(Box::new(resend.clone())))?;
        opened += usize::from(amended == Amended::Changed);
    }
    amending.finish()?;
    let counts = step.counts(opened);
    connection
        .prepare_cached(
            "UPDATE resend_job SET cursor = ?2, opened = opened + ?3, busy = busy + ?4, no_body = no_body + ?5,
                                   refused = refused + ?6, changed_at = ?7,
                                   state = CASE WHEN ?8 THEN 'done' ELSE state END WHERE id = ?1",
        )?
        .execute(params![
            step.job,
            step.to.map(|id| *id.as_bytes()),
            counts.opened,
            counts.busy,
            counts.no_body,
            counts.refused,
            now.millis(),
            step.is_last,
        ])?;
    Ok(Some(counts))
}
