//! An operator's changes of callbacks. Their rows are read before the transaction for the numbers that they need, and again under
//! locks: queues before rows, as everywhere.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use deadpool_postgres::Object;

use super::super::cells::{Uuid, param};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::pipeline::Pipeline;
use super::super::transaction::Open;
use super::names::Names;
use super::rows::{self, NumbersRead, Readable};
use super::work::{Entry, Work, finish};
use super::{kept, outbox, queues};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment, amend as decide};
use crate::model::callback::CallbackId;
use crate::model::settlement::{Pending, Rows};
use crate::store::engine::last_use_of_queue;

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
    let mut work = Work::new(store, names_of(store, client, &asked, now).await?, now);
    let mut first = Pipeline::new();
    let rows = work.lock(&mut first, &ids_of(&asked));
    let (transaction, mut answers) = Open::begin(client, first).await?;
    let found = work.found(&transaction, &mut answers, rows).await?;
    let amendments = Amendments::of(&asked, found, now);
    let mut last = Pipeline::new();
    amendments.write(&mut work, &mut last)?;
    outbox::insert(&mut last, &work.told, None, now);
    finish(store, transaction, last, work.kept).await?;
    Ok(amendments.answers)
}

/// The callbacks that are asked for, in order.
pub(super) fn ids_of(asked: &[Asked<'_>]) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = asked.iter().map(|change| change.id.into()).collect();
    ids.sort_unstable();
    ids
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
    let seen = rows::load(client, &store.numbers, &ids, &mut NumbersRead::default()).await?;
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

/// What becomes of callbacks, each of another id.
pub(super) struct Amendments {
    /// One for each that was asked for.
    pub(super) answers: Vec<Amended>,
    entries: BTreeMap<CallbackId, Entry>,
    /// Void rows, which make way for the rows of rounds.
    void: Vec<Pending>,
    /// How many of them have ended.
    ended: i64,
}

impl Amendments {
    /// Decides from the rows that were found.
    pub(super) fn of(asked: &[Asked<'_>], mut found: HashMap<CallbackId, Readable<Rows>>, now: Timestamp) -> Self {
        let answers = Vec::with_capacity(asked.len());
        let mut amendments = Self { answers, entries: BTreeMap::new(), void: Vec::new(), ended: 0 };
        for change in asked {
            let mut before = match found.remove(&change.id) {
                None => Rows::default(),
                Some(Ok(rows)) => rows,
                Some(Err(what)) => {
                    tracing::error!(callback = %change.id, what, "a row can't be read; it is left alone");
                    amendments.answers.push(Amended::Unknown);
                    continue;
                }
            };
            let (after, answer) = decide(&before, change.amendment, now);
            amendments.answers.push(answer);
            if answer != Amended::Changed {
                continue;
            }
            amendments.ended += i64::from(before.settled.is_none() && after.settled.is_some());
            if before.live().is_none() {
                amendments.void.extend(before.pending.take());
            }
            amendments.entries.insert(change.id, Entry { before, now: after, body: change.body.clone() });
        }
        amendments
    }

    pub(super) fn write<'e>(&'e self, work: &mut Work<'_>, last: &mut Pipeline<'e>) -> Result<(), PostgresError> {
        let mut void: Vec<(Uuid, i64)> = Vec::with_capacity(self.void.len());
        for row in &self.void {
            void.push((row.facts.id.into(), work.names.of_row(&row.facts)?.queue));
        }
        queues::delete_pending(last, &void);
        work.write_rows(last, &self.entries, &[])?;
        if self.ended > 0 {
            // They are counted with the store, because they belong to no instance's batch.
            last.push("UPDATE store SET abandoned = abandoned + $1", vec![param(self.ended)]);
        }
        Ok(())
    }
}
