//! Bodies of callbacks that have ended, on the model.

use bytes::Bytes;

use super::State;
use crate::model::callback::CallbackId;
use crate::model::keeping::Keeping;
use crate::model::settlement::Rows;
use crate::store::packed::pack;

impl State {
    /// Keeps a body, or drops it, as the callback's rows before and after a change say. Where it has no room, the oldest go.
    pub(super) fn follow(&mut self, keeping: Keeping, id: CallbackId, (before, after): (&Rows, &Rows), body: &Bytes) {
        if !keeping.keeps(after) {
            self.kept.remove(&id);
        } else if !keeping.keeps(before) && !body.is_empty() && pack(body).len() as u64 <= keeping.bytes {
            self.kept.insert(id, body.clone());
            while self.kept_bytes() > keeping.bytes {
                self.kept.pop_first();
            }
        }
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept.values().map(|body| pack(body).len() as u64).sum()
    }
}
