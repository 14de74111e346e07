//! An operator's changes of callbacks. Their rows are read before the transaction for the numbers that they need, and again under
//! locks: queues before rows, as everywhere.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use deadpool_postgres::{GenericClient as _, Object};

use super::super::cells::Uuid;
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::transaction::Tx;
use super::kept::{self, KeptChanges};
use super::names::Names;
use super::rows::{self, Locking, QueuesRead};
use super::write::{Entry, Work};
use super::{outbox, queues};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment, amend as decide};
use crate::model::callback::CallbackId;
use crate::model::settlement::Rows;
use crate::store::engine::last_use_of_queue;
use crate::store::queue_changes::QueueChanges;

/// The bodies of cancelled callbacks in one transaction have together at most so many bytes.
const BYTES: usize = 4 << 20;

/// A change, with the body that may be kept after it.
pub(super) struct Asked<'a> {
    pub(super) id: CallbackId,
    pub(super) amendment: &'a Amendment,
    pub(super) body: Bytes,
}

pub(super) async fn amend(
    store: &PostgresStore,
    client: &mut Object,
    changes: &[(CallbackId, Amendment)],
    now: Timestamp,
) -> Result<Vec<Amended>, PostgresError> {
    let asked = with_bodies(client, changes).await?;
    let names = names_of(store, client, &asked, now).await?;
    let transaction = client.transaction().await?;
    let mut work = Work::new(store, &transaction, names, now);
    let amended = work.amend(&asked).await?;
    let (kept, told) = (work.kept, work.told);
    outbox::insert(&transaction, &told, None, now).await?;
    kept.write(&transaction, store.keeping).await?;
    store.commit(transaction).await?;
    Ok(amended)
}

/// The first of these changes, as many as have room. The body of a pending callback never changes, so it may be read before its
/// row is locked.
async fn with_bodies<'a>(
    client: &Object,
    changes: &'a [(CallbackId, Amendment)],
) -> Result<Vec<Asked<'a>>, PostgresError> {
    let cancelled =
        changes.iter().filter(|(_, amendment)| matches!(amendment, Amendment::Cancel(_))).map(|(id, _)| *id);
    let cancelled: Vec<_> = cancelled.collect();
    let mut bodies = kept::bodies(client, &cancelled, BYTES).await?.into_iter();
    let mut asked = Vec::with_capacity(changes.len());
    for (id, amendment) in changes {
        let body = match amendment {
            Amendment::Resend(resend) => resend.body.clone(),
            Amendment::RetryNow => Bytes::new(),
            Amendment::Cancel(_) => match bodies.next() {
                Some(body) => body.unwrap_or_default(),
                None => break,
            },
        };
        asked.push(Asked { id: *id, amendment, body });
    }
    Ok(asked)
}

/// The numbers that the rows need, as they are seen before the transaction.
pub(super) async fn names_of(
    store: &PostgresStore,
    client: &Object,
    asked: &[Asked<'_>],
    now: Timestamp,
) -> Result<Names, PostgresError> {
    let ids: Vec<Uuid> = asked.iter().map(|change| change.id.into()).collect();
    let seen = rows::load(client, &store.numbers, &ids, Locking::None, &mut QueuesRead::new()).await?;
    let (mut partitions, mut queues, mut last_use) = (HashSet::new(), HashSet::new(), now);
    for rows in seen.values().filter_map(|rows| rows.as_ref().ok()) {
        let settled = rows.settled.as_ref().map(|row| &row.facts);
        for facts in settled.into_iter().chain(rows.pending.as_ref().map(|row| &row.facts)) {
            partitions.insert(&facts.record.partition);
            queues.insert(&facts.queue);
            last_use = last_use.max(last_use_of_queue(facts.id, now));
        }
    }
    queues.extend(asked.iter().filter_map(|change| match change.amendment {
        Amendment::Resend(resend) => Some(&resend.queue),
        Amendment::RetryNow | Amendment::Cancel(_) => None,
    }));
    Names::find(store, client, (partitions, queues), last_use).await
}

impl<'w> Work<'w> {
    /// For changes that need no epoch.
    pub(super) fn new(store: &'w PostgresStore, transaction: &'w Tx<'w>, names: Names, now: Timestamp) -> Self {
        let (epochs, queues, kept) = (HashMap::new(), QueueChanges::default(), KeptChanges::default());
        Self { store, transaction, names, epochs, now, queues, kept, told: Vec::new() }
    }

    /// Changes callbacks, each of another id. One answer for each.
    pub(super) async fn amend(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Amended>, PostgresError> {
        let mut ids: Vec<Uuid> = asked.iter().map(|change| change.id.into()).collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        queues::lock(self.transaction, self.names.queue_numbers(), &ids).await?;
        let read = &mut self.names.queues_read;
        let mut found = rows::load(self.transaction, &self.store.numbers, &ids, Locking::Update, read).await?;
        let mut entries: BTreeMap<CallbackId, Entry> = BTreeMap::new();
        let (mut amended, mut void, mut ended) = (Vec::with_capacity(asked.len()), Vec::<Uuid>::new(), 0_i64);
        for change in asked {
            let before = match found.remove(&change.id) {
                None => Rows::default(),
                Some(Ok(rows)) => rows,
                Some(Err(what)) => {
                    tracing::error!(callback = %change.id, what, "a row can't be read; it is left alone");
                    amended.push(Amended::Unknown);
                    continue;
                }
            };
            let (now, answer) = decide(&before, change.amendment, self.now);
            amended.push(answer);
            if answer != Amended::Changed {
                continue;
            }
            if before.pending.is_some() && before.live().is_none() {
                void.push(change.id.into());
            }
            ended += i64::from(before.settled.is_none() && now.settled.is_some());
            entries.insert(change.id, Entry { before, now, body: change.body.clone() });
        }
        // A void row makes way for the row of a round, with its body.
        self.delete_pending(&void, &entries).await?;
        for entry in entries.values_mut().filter(|entry| entry.before.live().is_none()) {
            entry.before = Rows { pending: None, ..std::mem::take(&mut entry.before) };
        }
        self.write_rows(&entries).await?;
        if ended > 0 {
            // They are counted with the store, because they belong to no instance's batch.
            let sql = "UPDATE store SET abandoned = abandoned + $1";
            let statement = self.transaction.prepare_cached(sql).await?;
            self.transaction.execute(&statement, &[&ended]).await?;
        }
        Ok(amended)
    }
}
