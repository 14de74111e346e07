//! Claims on the model.

use std::collections::HashMap;

use bytes::Bytes;

use super::State;
use crate::base::clock::Timestamp;
use crate::model::callback::{CallbackId, newest_builder};
use crate::model::endpoint::QueueKey;
use crate::model::lease::Token;
use crate::model::settlement::{Claim, Pending, apply_claim};
use crate::store::versions::NEWER_LOOK;
use crate::store::{ClaimAsk, Claimed, SetAside};

impl State {
    pub(super) fn claim(&mut self, ask: &ClaimAsk, now: Timestamp) -> Claimed {
        let unknown_builder = self.due(now, true).len();
        let set_aside = SetAside { unreadable: 0, unknown_builder };
        let mut claimed = Claimed { now, rows: Vec::new(), next_at: None, set_aside };
        let mut taken: HashMap<QueueKey, u32> = HashMap::new();
        let (mut token, mut bytes) = (ask.first_token.0, 0);
        for (queue, id) in self.due(now, false) {
            if ask.paused.include(&queue) {
                continue;
            }
            let room = ask.room.get(&queue).copied().unwrap_or(ask.usual_room);
            let used = taken.entry(queue.clone()).or_default();
            if *used >= room || claimed.rows.len() >= ask.at_most {
                continue;
            }
            let more = self.bodies.get(&id).map_or(0, Bytes::len);
            if bytes + more > ask.bytes && !(claimed.rows.is_empty() && ask.takes_larger_body_alone) {
                break;
            }
            let claim = Claim { token: Token(token), until: now.plus(ask.lease) };
            let rows = self.rows.get_mut(&id).expect("a due row is there");
            *rows = apply_claim(rows, &claim);
            if let Some(pending) = rows.pending.clone() {
                *used += 1;
                token = token.wrapping_add(1);
                let body = self.bodies.get(&id).cloned().unwrap_or_default();
                bytes += more;
                claimed.rows.push((pending, body));
                self.turn += 1;
                self.served.insert(queue, self.turn);
            }
        }
        let unleased = self.rows.values().filter_map(|rows| rows.pending.as_ref());
        let unleased = unleased.filter(|p| p.token.is_none() && !ask.paused.include(&p.facts.queue));
        let look = |pending: &Pending| {
            if is_newer(pending) { pending.due.max(now.plus(NEWER_LOOK)) } else { pending.due }
        };
        claimed.next_at = unleased.map(look).min();
        claimed
    }

    /// Due rows: those of the queue that was served longest ago first, and of each queue by due time. Either those that this program
    /// can send, or those for a newer one.
    fn due(&self, now: Timestamp, of_newer: bool) -> Vec<(QueueKey, CallbackId)> {
        let pending = self.rows.iter().filter_map(|(id, rows)| rows.pending.as_ref().map(|pending| (*id, pending)));
        let mut due: Vec<_> = pending
            .filter(|(_, pending)| pending.due <= now && pending.token.is_none() && is_newer(pending) == of_newer)
            .map(|(id, pending)| {
                let queue = pending.facts.queue.clone();
                (self.served.get(&queue).copied().unwrap_or(0), queue, pending.due, id)
            })
            .collect();
        due.sort();
        due.into_iter().map(|(_, queue, _, id)| (queue, id)).collect()
    }
}

/// Its body was joined by code that this program does not know.
fn is_newer(pending: &Pending) -> bool {
    pending.facts.builder > newest_builder()
}
