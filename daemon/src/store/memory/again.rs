//! What is sent again, on the model: rounds of a job, and dead letters that become callbacks.

use std::sync::PoisonError;

use super::{MemoryStore, State};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment, Resend, amend};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::Fate;
use crate::model::keeping::Keeping;
use crate::model::settlement::Change;
use crate::store::resends::{ResendCounts, ResendState};
use crate::store::{LetterResend, LetterResent, ResendStep};

impl MemoryStore {
    pub(super) fn send_again(&self, step: &ResendStep) -> Option<ResendCounts> {
        let now = self.clock.now();
        let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let job = admin.resends.get_mut(&step.job).filter(|(row, held)| {
            let is_ours = held.is_some_and(|(holder, _)| holder == step.instance);
            row.state == ResendState::Running && row.cursor == step.from && is_ours
        });
        let (row, _) = job?;
        let mut state = self.state();
        let mut open = |id: CallbackId, resend: &Resend| {
            state.amend(id, &Amendment::Resend(Box::new(resend.clone())), self.keeping, now) == Amended::Changed
        };
        let opened = step.rounds.iter().filter(|(id, resend)| open(*id, resend)).count();
        let counts = step.counts(opened);
        row.follow((step.to, step.is_last), counts, now);
        Some(counts)
    }

    pub(super) fn send_letter(&self, resend: &LetterResend) -> LetterResent {
        let now = self.clock.now();
        let mut state = self.state();
        let id = resend.facts.id;
        let resent = LetterResent::of(&state.rows.get(&id).cloned().unwrap_or_default(), &resend.facts);
        if resent != LetterResent::Reused && !state.dead_letters.contains_key(&resend.letter) {
            return LetterResent::Unknown;
        }
        if resent == LetterResent::Parked {
            let park = Change::Park(Box::new(resend.park(now)));
            state.change(&park, true, (self.values, self.keeping), now);
        }
        if let Some(letter) = state.dead_letters.get_mut(&resend.letter).filter(|_| resent != LetterResent::Reused) {
            letter.fate = Fate::Resent(id);
        }
        resent
    }

    pub(super) fn set_aside(&self, letter: CallbackId) -> bool {
        let mut state = self.state();
        let found = state.dead_letters.get_mut(&letter).filter(|letter| letter.fate.callback().is_none());
        found.map(|letter| letter.fate = Fate::Discarded).is_some()
    }
}

impl State {
    pub(super) fn amend(&mut self, id: CallbackId, amendment: &Amendment, keeping: Keeping, now: Timestamp) -> Amended {
        let before = self.rows.get(&id).cloned().unwrap_or_default();
        let (after, amended) = amend(&before, amendment, now);
        if amended != Amended::Changed {
            return amended;
        }
        self.counts.abandoned += u64::from(before.settled.is_none() && after.settled.is_some());
        if let Amendment::Resend(resend) = amendment {
            self.bodies.insert(id, resend.body.clone());
        }
        let body = self.bodies.get(&id).cloned().unwrap_or_default();
        if after.pending.is_none() {
            self.bodies.remove(&id);
        }
        self.follow(keeping, id, (&before, &after), &body);
        self.told.extend(self.notices.of(id, &before, &after));
        self.rows.insert(id, after);
        amended
    }
}
