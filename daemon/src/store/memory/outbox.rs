//! The outbox of the model.

use super::{MemoryStore, State, done};
use crate::model::callback::CallbackId;
use crate::model::settlement::Settled;
use crate::store::outbox::{Outbox, OutboxRow};
use crate::store::{Answer, InstanceId};

impl State {
    /// Writes what a transaction has to tell.
    pub(super) fn tell(&mut self) {
        let told = std::mem::take(&mut self.told);
        if !told.is_empty() {
            self.outbox_rows += 1;
            self.outbox.insert(self.outbox_rows, told);
        }
    }
}

impl Outbox for MemoryStore {
    fn outbox(&self, _: InstanceId, at_most: usize) -> Answer<'_, Vec<OutboxRow>> {
        let state = self.state();
        let rows =
            state.outbox.iter().take(at_most).map(|(id, notices)| OutboxRow { id: *id, notices: notices.clone() });
        done(Ok(rows.collect()))
    }

    fn published(&self, rows: Vec<i64>) -> Answer<'_, ()> {
        self.state().outbox.retain(|id, _| !rows.contains(id));
        done(Ok(()))
    }

    fn endings(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Settled>>> {
        let state = self.state();
        let ending = |id: &CallbackId| state.rows.get(id).and_then(|rows| rows.settled.clone());
        done(Ok(ids.iter().map(ending).collect()))
    }
}
