//! A claimed row on its way to its lane.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Delivery;
use super::resolve::lane_of;
use crate::base::body_budget::{BodyBudget, Share};
use crate::base::clock::{Moment, Timestamp};
use crate::flight::settle::Settler;
use crate::flight::{Begin, Inflight};
use crate::model::lease::{LEASE_SLACK, Lease, Right, Suspect, Token};
use crate::model::no_body::NoBody;
use crate::model::settlement::{Change, Pending};
use crate::schedule::Side;

/// How long a reading of bodies may take.
const READING: Duration = Duration::from_secs(20);

/// A row under a lease of this instance.
pub(super) struct ClaimedRow {
    pub(super) pending: Pending,
    pub(super) token: Token,
    /// The store's clock and the boot-time clock at the claim.
    pub(super) born_at: Timestamp,
    pub(super) born: Moment,
}

/// Brings claimed rows to their lanes.
#[derive(Clone)]
pub(super) struct Offering {
    pub(super) delivery: Delivery,
    pub(super) inflight: Arc<Inflight>,
    pub(super) settler: Settler,
    pub(super) bodies: BodyBudget,
    /// How long a claimed row is leased to this instance.
    pub(super) lease: Duration,
}

impl Offering {
    /// Offers the row to its lane. Its body has its place in the budget, and one whose body can't be had ends with its turn.
    pub(super) async fn offer(&self, row: ClaimedRow, body: Result<Bytes, NoBody>, suspect: Option<Suspect>) {
        let ClaimedRow { pending, token, born_at, born } = row;
        let entry = self.delivery.directory.team(&pending.facts.team).await.ok().flatten();
        let lane = lane_of(&pending.facts.queue, entry.as_deref());
        let lease = Arc::new(Lease {
            facts: pending.facts,
            url: pending.url,
            no_body: body.as_ref().err().copied(),
            body: body.unwrap_or_default(),
            progress: pending.progress,
            round: pending.round,
            new_id: pending.new_id,
            token,
            right: Right::Row,
            born_at,
            born,
            until: Some(born.plus(self.lease)),
            suspect,
        });
        match self.inflight.begin(&lease) {
            Begin::Begun => self.delivery.lanes.offer(lane, Side::Due, lease),
            // An attempt of ours outlived its lease, and its row was claimed again. The row is given back.
            Begin::Repeat | Begin::Reused | Begin::NotOurs => {
                let facts = Arc::clone(&lease.facts);
                self.settler.submit(Change::Release { facts, token }).await;
            }
        }
    }

    /// Whether so little is left of the row's lease that a body which is read now may come too late.
    pub(super) fn is_late(&self, row: &ClaimedRow) -> bool {
        self.patience(row).is_zero()
    }

    /// How long the row can still wait, so that its attempt has time enough.
    pub(super) fn patience(&self, row: &ClaimedRow) -> Duration {
        let needed = self.delivery.engine.client.total_deadline().saturating_add(LEASE_SLACK);
        let slack = self.lease.saturating_sub(needed);
        let left = row.born.plus(self.lease).since(Moment::now());
        left.saturating_sub(needed.saturating_add((slack / 2).min(READING)))
    }

    /// Gives the row back without an attempt.
    pub(super) async fn give_back(&self, row: ClaimedRow) {
        self.settler.submit(Change::Release { facts: row.pending.facts, token: row.token }).await;
    }

    /// The body, with its place in the budget. A claim takes no more than was free, and a reading at most one body more.
    pub(super) fn held(&self, body: Bytes) -> Bytes {
        match self.bodies.try_take(Share::Due, body.len()) {
            Some(room) => room.hold(body),
            None => body,
        }
    }
}
