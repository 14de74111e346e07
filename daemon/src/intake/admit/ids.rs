//! The ids of callbacks. An id is a pure function of the event, unless the event's id contains no time: then the id is
//! claimed in the store, so that a repeated event gets the id of its first copy.

use sha2::{Digest as _, Sha256};

use super::{Admit, Event};
use crate::faults::{self, Fault};
use crate::model::callback::{CallbackId, EventKey, time_inside};
use crate::model::event::TaskEvent;
use crate::store::EventClaim;

impl Admit {
    /// The callbacks' ids, in order. For an event id without a time, the id is claimed in the store.
    pub(super) async fn ids(&self, events: &[Event]) -> Vec<CallbackId> {
        let mut ids: Vec<_> = events.iter().map(|event| id_of(&event.event)).collect();
        let mut claims = Vec::new();
        let mut claimed = Vec::new();
        for (index, Event { event, .. }) in events.iter().enumerate() {
            if let Some(event_id) = event.event_id.as_deref().filter(|id| time_inside(id).is_none()) {
                claims.push(EventClaim { hash: event_hash(&event.team, event_id), id: ids[index] });
                claimed.push(index);
            }
        }
        if !claims.is_empty() {
            let winners = self.insist(|| self.deps.store.claim_event_ids(claims.clone())).await;
            for (index, id) in claimed.into_iter().zip(winners) {
                ids[index] = id;
            }
        }
        ids
    }
}

fn id_of(event: &TaskEvent) -> CallbackId {
    if faults::is_on(Fault::RandomIds) {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
        return CallbackId::from_bytes(bytes);
    }
    let key = match &event.event_id {
        Some(id) => EventKey::Id(id),
        None => EventKey::Record {
            partition: &event.record.partition,
            offset: event.record.offset,
            content: &event.content_hash,
        },
    };
    CallbackId::of(&event.team, key, event.record.timestamp)
}

fn event_hash(team: &str, event_id: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(u32::try_from(team.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(team);
    hash.update(event_id);
    hash.finalize().into()
}
