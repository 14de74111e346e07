//! The store as a model: maps under a lock, merged by `settlement::apply` alone. It is the reference that the contract
//! suites compare every other store with, so it stays as simple as its traits allow. For tests.

mod admin;
mod admin_state;
mod again;
mod bodies;
mod claim;
mod engine;
mod followed;
mod instances;
mod kept;
mod outbox;
mod partitions;
mod prune;
mod reads;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::reads::{BuriedLetter, Counts, InstanceEnd};
use super::{Answer, Options, StoreError};
use crate::base::clock::{Clock, Timestamp};
use crate::model::callback::{CallbackId, Hash};
use crate::model::dead_letter::ValueBudget;
use crate::model::endpoint::QueueKey;
use crate::model::endpoint_history::EndpointHistory;
use crate::model::event::PartitionKey;
use crate::model::keeping::Keeping;
use crate::model::notice::{Notice, Notices};
use crate::model::offsets::Watermark;
use crate::model::settlement::{NumberedAttempt, Rows};

pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    values: ValueBudget,
    keeping: Keeping,
    created_at: Timestamp,
    state: Mutex<State>,
    admin: Mutex<admin_state::AdminState>,
}

/// What the engine writes.
#[derive(Default)]
struct State {
    /// Several instances use it at once, as a database on a server.
    is_shared: bool,
    instances: BTreeMap<i64, Instance>,
    partitions: BTreeMap<PartitionKey, Partition>,
    rows: BTreeMap<CallbackId, Rows>,
    /// Bodies of pending callbacks.
    bodies: BTreeMap<CallbackId, Bytes>,
    /// Bodies of callbacks that have ended.
    kept: BTreeMap<CallbackId, Bytes>,
    attempts: BTreeMap<(CallbackId, u32), NumberedAttempt>,
    dead_letters: BTreeMap<CallbackId, BuriedLetter>,
    event_ids: BTreeMap<Hash, (CallbackId, Timestamp)>,
    counts: Counts,
    /// By team and origin.
    endpoints: BTreeMap<(String, String), EndpointHistory>,
    /// The turn in which each queue was served last.
    served: BTreeMap<QueueKey, u64>,
    turn: u64,
    /// What is told, what the present transaction tells, and what waits to be published.
    notices: Notices,
    told: Vec<Notice>,
    outbox: BTreeMap<i64, Vec<Notice>>,
    outbox_rows: i64,
}

struct Instance {
    /// The number of the last batch that was applied.
    batch: u64,
    started_at: Timestamp,
    seen_at: Timestamp,
    end: Option<InstanceEnd>,
    /// Another one has begun since its end.
    is_noted: bool,
    run: String,
}

struct Partition {
    epoch: i64,
    owner: Option<i64>,
    /// Since when another instance waits for it.
    wanted_at: Option<Timestamp>,
    watermark: Watermark,
    accepted: Option<String>,
    moved_at: Timestamp,
    taken_upto: i64,
    deaths: u32,
}

impl MemoryStore {
    pub fn new(options: Options, clock: Arc<dyn Clock>) -> Self {
        let Options { values, keeping, notices, .. } = options;
        let state = Mutex::new(State { notices, ..State::default() });
        Self { created_at: clock.now(), clock, values, keeping, state, admin: Mutex::default() }
    }

    /// A store that several instances use at once, as they do a database on a server: the begin of one ends no other.
    pub fn shared(options: Options, clock: Arc<dyn Clock>) -> Self {
        let store = Self::new(options, clock);
        store.state().is_shared = true;
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done<'a, T: Send + 'a>(value: Result<T, StoreError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}
