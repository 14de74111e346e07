//! The ids of callbacks. An id is a pure function of the event, unless the event's id contains no time: then the id is
//! claimed in the store, so that a repeated event gets the id of its first copy.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Admit, Event};
use crate::deliver::resolve::queue_of;
use crate::faults::{self, Fault};
use crate::model::callback::{CallbackId, EventKey, time_inside};
use crate::model::event::TaskEvent;
use crate::model::lease::Facts;
use crate::store::EventClaim;

impl Admit {
    /// The callbacks' ids, in order. For an event id without a time, the id is claimed in the store.
    pub(super) async fn ids(&self, events: &[Event]) -> Vec<CallbackId> {
        let mut ids: Vec<_> = events.iter().map(|event| callback_id(&event.event)).collect();
        let mut claims = Vec::new();
        let mut claimed = Vec::new();
        for (index, Event { event, .. }) in events.iter().enumerate() {
            if let Some(claim) = event_claim(event, ids[index]) {
                claims.push(claim);
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

/// What never changes in the life of an event's callback, whose body this builder joined.
pub fn facts_of(event: &TaskEvent, id: CallbackId, builder: u8) -> Facts {
    Facts {
        id,
        record: event.record.clone(),
        team: Arc::clone(&event.team),
        task_id: event.task_id.clone(),
        event_id: event.event_id.clone(),
        event_type: Arc::clone(&event.event_type),
        queue: queue_of(&event.team, event.callback_url.as_deref(), event.mode),
        mode: event.mode,
        content_hash: event.content_hash,
        builder,
    }
}

/// The claim of this id for an event whose own id contains no time. `None` if there is nothing to claim.
pub fn event_claim(event: &TaskEvent, id: CallbackId) -> Option<EventClaim> {
    let event_id = event.event_id.as_deref().filter(|id| time_inside(id).is_none())?;
    Some(EventClaim { hash: event_hash(&event.team, event_id), id })
}

/// The id of an event's callback. A claim may give it another one.
pub fn callback_id(event: &TaskEvent) -> CallbackId {
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
