//! Where the contract leaves a store a choice, the model makes the choice that another store has made, so that the two can be
//! compared afterwards. What happens outside a store is told to the model here, too.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::MemoryStore;
use crate::model::callback::CallbackId;
use crate::model::lease::Token;
use crate::model::settlement::{Claim, Pending, apply_claim};
use crate::store::reads::InstanceEnd;
use crate::store::{InstanceId, PruneAsk, Pruned};

impl MemoryStore {
    /// Claims these rows, each under its token. One that is not due, or is under way already, is left out.
    pub fn claim_these(&self, rows: &[(CallbackId, Token)], lease: Duration) -> Vec<(Pending, Bytes)> {
        let now = self.clock.now();
        let mut state = self.state();
        let mut claimed = Vec::new();
        for (id, token) in rows {
            let body = state.bodies.get(id).cloned().unwrap_or_default();
            let Some(rows) = state.rows.get_mut(id) else { continue };
            if rows.pending.as_ref().is_none_or(|pending| pending.due > now || pending.token.is_some()) {
                continue;
            }
            *rows = apply_claim(rows, &Claim { token: *token, until: now.plus(lease) });
            claimed.extend(rows.pending.clone().map(|pending| (pending, body)));
        }
        claimed
    }

    /// Prunes, and leaves these callbacks.
    pub fn prune_all_but(&self, ask: &PruneAsk, kept: &BTreeSet<CallbackId>) -> Pruned {
        self.state().prune(ask, kept)
    }

    /// The process of this instance is gone.
    pub fn died(&self, instance: InstanceId) {
        if let Some(instance) = self.state().instances.get_mut(&instance.0) {
            instance.end = Some(InstanceEnd::Died);
        }
    }
}
