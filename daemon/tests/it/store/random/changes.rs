//! Random changes of a batch: first tries, parks, settles with right and wrong tokens, releases and dead letters.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::model::attempt::{Attempt, Outcome, SentWithId};
use callbackd::model::lease::{Facts, Token};
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Park, Settle};

use super::ids;
use super::world::{Held, World};

/// The longest lease of a run.
pub(super) const LEASE: Duration = Duration::from_secs(60);

impl World {
    /// A change that this instance writes, about a record that it has the partition of, or believes so.
    pub(super) fn change(&mut self, seat: usize, n: u64) -> Change {
        let epoch = self.epoch(seat, n);
        let facts = ids::facts(n);
        match self.below(100) {
            _ if ids::is_letter(n) => Change::Bury(Box::new(ids::letter(n)), epoch),
            0..35 => {
                let held = Held { facts, token: self.seed.next_u64(), epoch: Some(epoch) };
                self.settle(&held)
            }
            35..45 => self.park(facts, epoch, false),
            45..57 => self.park(facts, epoch, true),
            57..85 => self.settle_held(n),
            85..92 => {
                let mut held = self.a_held(n);
                held.token = held.token.wrapping_add(1);
                self.settle(&held)
            }
            92..97 => {
                let Held { facts, token, .. } = self.a_held(n);
                Change::Release { facts, token: Token(token) }
            }
            _ => {
                let held = Held { facts, token: self.seed.next_u64(), epoch: None };
                self.settle(&held)
            }
        }
    }

    /// Mostly the epoch in which the instance took the partition.
    pub(super) fn epoch(&mut self, seat: usize, n: u64) -> i64 {
        let known = self.seats[seat].epochs.get(&(n % ids::PARTITIONS)).copied().unwrap_or(1);
        match self.below(20) {
            0 => known - 1,
            1 => known + 5,
            _ => known,
        }
    }

    /// An attempt that is under way, or one of this number that nobody knows.
    fn a_held(&mut self, n: u64) -> Held {
        if self.held.is_empty() {
            return Held { facts: ids::facts(n), token: 7, epoch: None };
        }
        let at = self.below(self.held.len() as u64) as usize;
        self.held[at].clone()
    }

    /// Most attempts settle once.
    fn settle_held(&mut self, n: u64) -> Change {
        let held = self.a_held(n);
        if self.chance(80) {
            self.held.retain(|other| other.token != held.token);
        }
        self.settle(&held)
    }

    fn park(&mut self, facts: Arc<Facts>, epoch: i64, is_leased: bool) -> Change {
        let n = ids::number(facts.id);
        let token = self.seed.next_u64();
        if is_leased {
            self.held.push(Held { facts: Arc::clone(&facts), token, epoch: Some(epoch) });
        }
        let lease = Duration::from_millis(1 + self.below(LEASE.as_millis() as u64));
        Change::Park(Box::new(Park {
            facts,
            epoch,
            url: ids::url(n),
            body: ids::body(n),
            due: self.now(),
            token: Token(token),
            lease_until: is_leased.then(|| self.now().plus(lease)),
        }))
    }

    fn settle(&mut self, held: &Held) -> Change {
        let n = ids::number(held.facts.id);
        let (outcome, next) = self.outcome();
        Change::Settle(Box::new(Settle {
            facts: Arc::clone(&held.facts),
            token: Token(held.token),
            epoch: held.epoch,
            url: ids::url(n),
            body: ids::body(n),
            number: 1,
            attempt: self.attempt(outcome),
            next,
        }))
    }

    fn outcome(&mut self) -> (Outcome, Next) {
        let now = self.now();
        let failed = self.one_of(&[Outcome::ServerError, Outcome::HeadReset, Outcome::DnsTimeout]);
        let wait = self.one_of(&[0, 1, 5_000, 60_000, 3_600_000]);
        let due = now.plus(Duration::from_millis(wait + self.below(3) * 500));
        let horizon = now.plus(Duration::from_secs(86_400));
        match self.below(100) {
            0..35 => (Outcome::Ok, Next::Delivered),
            35..70 => (failed, Next::Retry { due, since: now, horizon }),
            70..82 => (failed, Next::Exhausted),
            82..90 => (Outcome::Gone, Next::Abandoned(Reason::Gone)),
            90..95 => (Outcome::NoUrl, Next::Abandoned(Reason::NoUrl)),
            _ => (Outcome::Interrupted, Next::Interrupted { due: now, since: now, horizon }),
        }
    }

    fn attempt(&mut self, outcome: Outcome) -> Attempt {
        let begun = Duration::from_millis(self.below(20_000));
        Attempt {
            outcome,
            sent: outcome != Outcome::NoUrl,
            status: match outcome {
                Outcome::Ok => Some(200),
                Outcome::Gone => Some(410),
                Outcome::ServerError => Some(500),
                _ => None,
            },
            begun_at: self.now().minus(begun),
            took: Duration::from_millis(self.below(15_000)),
            peer: self.chance(50).then(|| "127.0.0.1:80".parse().unwrap()),
            redialed: self.chance(10),
            sent_with: self.chance(50).then(|| SentWithId(i64::from(self.chance(50)))),
            snippet: Bytes::from_static(b"\0\xffnot text"),
        }
    }
}

/// A change in a few words.
pub(super) fn told(change: &Change) -> String {
    match change {
        Change::Settle(settle) => {
            let n = ids::number(settle.facts.id);
            let next = match settle.next {
                Next::Retry { due, .. } => format!("retry at {due}"),
                Next::Interrupted { .. } => "interrupted".to_owned(),
                other => format!("{other:?}"),
            };
            format!("settle {n} by {:x} epoch {:?}: {next}", settle.token.0, settle.epoch)
        }
        Change::Park(park) => {
            let lease = park.lease_until.map(|until| format!(" under {:x} until {until}", park.token.0));
            format!("park {} epoch {}{}", ids::number(park.facts.id), park.epoch, lease.unwrap_or_default())
        }
        Change::Release { facts, token } => format!("release {} by {:x}", ids::number(facts.id), token.0),
        Change::Bury(letter, epoch) => format!("bury {} epoch {epoch}", ids::number(letter.id)),
    }
}
