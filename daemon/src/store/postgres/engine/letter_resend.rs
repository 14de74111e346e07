//! What becomes of a dead letter: a callback after all, or it is set aside.

use std::collections::{BTreeMap, HashSet};

use deadpool_postgres::{GenericClient, Object};

use super::super::cells::Uuid;
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::pipeline::Pipeline;
use super::super::transaction::Open;
use super::names::Names;
use super::work::{Entry, Work};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{Fate, LetterState};
use crate::model::settlement::{Change, Rows, apply};
use crate::store::{LetterResend, LetterResent};

/// Row 33.
pub(super) async fn resend(
    store: &PostgresStore,
    client: &mut Object,
    resend: &LetterResend,
    now: Timestamp,
) -> Result<LetterResent, PostgresError> {
    let facts = &resend.facts;
    let named = (HashSet::from([&facts.record.partition]), HashSet::from([&facts.queue]));
    let names = Names::find(store, client, named, now).await?;
    let mut work = Work::new(store, names, now);
    let mut first = Pipeline::new();
    let rows = work.lock(&mut first, &[facts.id.into()]);
    let (transaction, mut answers) = Open::begin(client, first).await?;
    let mut found = work.found(&transaction, &mut answers, rows).await?;
    let before = found.remove(&facts.id).transpose().map_err(PostgresError::Corrupt)?.unwrap_or_default();
    let resent = LetterResent::of(&before, facts);
    let fate = Fate::Resent(facts.id);
    if resent != LetterResent::Reused && !become_of(transaction.client(), resend.letter, fate).await? {
        return Ok(LetterResent::Unknown);
    }
    let mut entries = BTreeMap::new();
    if resent == LetterResent::Parked {
        let step = apply(&Rows::default(), &Change::Park(Box::new(resend.park(now))), true);
        entries.insert(facts.id, Entry { before: Rows::default(), now: step.rows, body: resend.body.clone() });
    }
    let mut last = Pipeline::new();
    work.write_rows(&mut last, &entries, &[])?;
    transaction.commit(last, &store.warnings).await?;
    Ok(resent)
}

/// Records what became of a dead letter. False if there is none of this id, or if it became a callback and this is none.
pub(super) async fn become_of(
    client: &impl GenericClient,
    letter: CallbackId,
    fate: Fate,
) -> Result<bool, PostgresError> {
    let state = Some(fate.state()).filter(|state| *state != LetterState::Open).map(LetterState::name);
    let callback: Option<Uuid> = fate.callback().map(Uuid::from);
    // What became a callback stays one.
    let sql =
        "UPDATE dead_letter SET fate = $2, callback = $3 WHERE id = $1 AND ($3::uuid IS NOT NULL OR callback IS NULL)";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &[&Uuid::from(letter), &state, &callback]).await? == 1)
}
