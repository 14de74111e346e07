//! The contract of rounds: a callback that had ended is sent again, its settled row stays, and every change beside it has the
//! effect that `settlement::apply` and `amendment::amend` give. And of the bodies that are kept for this.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::{Clock as _, ManualClock};
use callbackd::model::amendment::{Amended, Amendment, Resend, amend};
use callbackd::model::attempt::Outcome;
use callbackd::model::endpoint::{QueueKey, QueueTarget};
use callbackd::model::keeping::{KeepBodies, Keeping};
use callbackd::model::lease::Token;
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Ended, NumberedAttempt, Rows, Settle, Verdict, apply};
use callbackd::model::state::State;
use callbackd::model::team::Mode;
use callbackd::store::reads::{CallbackFilter, Page, QueueMatch};
use callbackd::store::{Batch, ClaimAsk, Options, PruneAsk, SpaceAsk, Stores};

use super::engine::{Subject, changes, facts, partition, retry, settle, subjects};
use super::{OPTIONS, START, opened_with, take};

const BODY: &[u8] = b"{\"task\":{}}";

/// To the team's default URL.
pub(super) fn resend() -> Amendment {
    let queue = QueueKey { team: "team_a".into(), target: QueueTarget::Default(Mode::Live) };
    Amendment::Resend(Box::new(Resend {
        ended_before: None,
        new_id: false,
        url: None,
        queue,
        body: Bytes::from_static(BODY),
    }))
}

/// One step on the way to a state.
#[derive(Clone)]
enum Step {
    Change(Change),
    Resend,
    /// The round's row is claimed; its token is 7.
    Claim,
}

type Lead = Box<dyn Fn(u32) -> Vec<Step>>;

/// Every state of a callback that was sent again, as the steps that lead to it.
fn states(epoch: i64) -> Vec<(&'static str, Lead)> {
    let first = move |n, outcome, next| Step::Change(settle(n, 7, Some(epoch), outcome, next));
    let exhausted = move |n| first(n, Outcome::ServerError, Next::Exhausted);
    let delivered = move |n| first(n, Outcome::Ok, Next::Delivered);
    let abandoned = move |n| first(n, Outcome::Gone, Next::Abandoned(Reason::Gone));
    let ends = |n, outcome, next| Step::Change(settle(n, 7, None, outcome, next));
    let failed = Outcome::HeadReset;
    vec![
        ("exhausted, sent again", Box::new(move |n| vec![exhausted(n), Step::Resend])),
        ("exhausted, sent again, claimed", Box::new(move |n| vec![exhausted(n), Step::Resend, Step::Claim])),
        ("delivered, sent again", Box::new(move |n| vec![delivered(n), Step::Resend])),
        ("delivered, sent again, claimed", Box::new(move |n| vec![delivered(n), Step::Resend, Step::Claim])),
        (
            "abandoned, sent again, failed once",
            Box::new(move |n| vec![abandoned(n), Step::Resend, Step::Claim, ends(n, failed, retry())]),
        ),
        (
            "exhausted, sent again, used up",
            Box::new(move |n| vec![exhausted(n), Step::Resend, Step::Claim, ends(n, failed, Next::Exhausted)]),
        ),
        (
            "exhausted, sent again, delivered",
            Box::new(move |n| vec![exhausted(n), Step::Resend, Step::Claim, ends(n, Outcome::Ok, Next::Delivered)]),
        ),
        (
            "delivered twice, sent again, claimed",
            Box::new(move |n| {
                let again =
                    [Step::Resend, Step::Claim, ends(n, Outcome::Ok, Next::Delivered), Step::Resend, Step::Claim];
                [&[delivered(n)][..], &again].concat()
            }),
        ),
    ]
}

impl Subject {
    async fn lead(&mut self, steps: Vec<Step>, n: u32) {
        for step in steps {
            match step {
                Step::Change(change) => drop(self.write(vec![change], vec![]).await),
                Step::Resend => {
                    // Nothing else is due, so that the claim takes this row first.
                    self.store.claim(self.ask()).await.unwrap();
                    assert_eq!(self.amend(facts(n).id, resend()).await, Amended::Changed);
                }
                Step::Claim => {
                    let ask = ClaimAsk { first_token: Token(7), ..self.ask() };
                    let claimed = self.store.claim(ask).await.unwrap().rows;
                    assert_eq!(claimed.len(), 1, "{}", self.name);
                    assert_eq!(claimed[0].1, BODY, "{}", self.name);
                }
            }
        }
    }

    /// What can be seen from outside agrees with the rows.
    async fn holds(&self, n: u32, attempts: &[NumberedAttempt], context: &str) {
        let id = facts(n).id;
        let rows = self.rows(id).await;
        let has_body = rows.pending.is_some() || OPTIONS.keeping.keeps(&rows);
        assert_eq!(self.reads.body(id).await.unwrap().is_some(), has_body, "{context}: its body");
        let counted = rows.live().map_or_else(|| rows.settled.as_ref().unwrap().attempts, |row| row.progress.attempts);
        let recorded = u32::try_from(attempts.len()).unwrap();
        // Only a first delivery stands in the settled row alone.
        assert!(counted == recorded || counted == recorded + 1, "{context}: {counted} attempts, {recorded} rows");
        assert!(attempts.windows(2).all(|pair| pair[0].n < pair[1].n), "{context}: each attempt has its own number");
    }
}

#[tokio::test]
async fn every_pair_of_rows_with_a_round_and_change_is_what_apply_says() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        let mut n = 0;
        for (state, lead) in states(epoch) {
            for (what, change) in changes(epoch) {
                n += 1;
                subject.lead(lead(n), n).await;
                let id = facts(n).id;
                let before = subject.rows(id).await;
                let mut attempts = subject.attempts(id).await;
                let change = change(n);
                let ours = change.record().is_none_or(|(_, own)| own == epoch);
                let expected = apply(&before, &change, ours);
                let verdicts = subject.write(vec![change], vec![]).await;
                let context = format!("{}: {state}, then {what}", subject.name);
                assert_eq!(subject.rows(id).await, expected.rows, "{context}");
                attempts.extend(expected.attempt);
                assert_eq!(subject.attempts(id).await, attempts, "{context}");
                if !verdicts.is_empty() {
                    assert_eq!(verdicts, [expected.verdict], "{context}");
                }
                subject.holds(n, &attempts, &context).await;
                let was_delivered = before.settled.unwrap().ended == Ended::Delivered;
                let is_delivered = expected.rows.settled.unwrap().ended == Ended::Delivered;
                assert!(is_delivered || !was_delivered, "{context}: delivered is final");
            }
        }
        assert!(n > 250, "{n} pairs");
    }
}

#[tokio::test]
async fn every_pair_of_rows_with_a_round_and_amendment_is_what_amend_says() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        let mut n = 0;
        for (state, lead) in states(epoch) {
            for amendment in [Amendment::RetryNow, Amendment::Cancel(Reason::Cancelled), resend()] {
                n += 1;
                subject.lead(lead(n), n).await;
                let id = facts(n).id;
                let (before, attempts) = (subject.rows(id).await, subject.attempts(id).await);
                let (after, amended) = amend(&before, &amendment, subject.clock.now());
                let context = format!("{}: {state}, then {amendment:?}", subject.name);
                assert_eq!(subject.amend(id, amendment).await, amended, "{context}");
                assert_eq!(subject.rows(id).await, after, "{context}");
                assert_eq!(subject.attempts(id).await, attempts, "{context}");
                subject.holds(n, &attempts, &context).await;
            }
        }
        let (counts, _) = subject.reads.counts().await.unwrap();
        assert_eq!(counts.abandoned, 3, "{}: a round that is cancelled ends no callback", subject.name);
    }
}

/// The effects of rounds, row by row.
#[tokio::test]
async fn a_round_has_tries_of_its_own_and_its_success_is_for_good() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![settle(1, 7, Some(epoch), Outcome::ServerError, Next::Exhausted)], vec![]).await;
        let id = facts(1).id;
        let first = subject.rows(id).await.settled.unwrap();
        subject.clock.advance(Duration::from_secs(3_600));
        subject.lead(vec![Step::Resend], 1).await;
        let Rows { settled, pending } = subject.rows(id).await;
        let (settled, pending) = (settled.unwrap(), pending.unwrap());
        assert_eq!((settled.ended, settled.round, settled.revision), (Ended::Exhausted, 1, 1), "{}", subject.name);
        assert_eq!((pending.progress.tries, pending.progress.attempts, pending.round), (0, 1, 1), "{}", subject.name);
        assert_eq!((pending.progress.since, pending.progress.horizon), (None, None), "a horizon of its own");
        assert_eq!(pending.due, subject.clock.now(), "{}", subject.name);
        assert_eq!(pending.facts.queue.target, QueueTarget::Default(Mode::Live), "{}", subject.name);
        let again = subject.amend(id, resend()).await;
        assert_eq!(again, Amended::Open(1), "{}", subject.name);
        // A failure that is retried, then one that ends the round: the callback stays exhausted.
        subject.lead(vec![Step::Claim], 1).await;
        let due = subject.clock.now().plus(Duration::from_secs(5));
        let next = Next::Retry { due, since: subject.clock.now(), horizon: due };
        subject.write(vec![settle(1, 7, None, Outcome::HeadReset, next)], vec![]).await;
        subject.clock.advance(Duration::from_secs(10));
        subject.lead(vec![Step::Claim], 1).await;
        let ends = subject.write(vec![settle(1, 7, None, Outcome::HeadReset, Next::Exhausted)], vec![]).await;
        assert!(ends.is_empty() || ends == [Verdict::RoundEnded], "{}: {ends:?}", subject.name);
        let rows = subject.rows(id).await;
        let settled = rows.settled.unwrap();
        assert_eq!((settled.ended, settled.attempts, rows.pending), (Ended::Exhausted, 3, None), "{}", subject.name);
        assert_eq!((settled.settled_at, settled.outcome), (first.settled_at, first.outcome), "{}", subject.name);
        // The next round arrives, and what fails later changes nothing.
        subject.lead(vec![Step::Resend, Step::Claim], 1).await;
        subject.write(vec![settle(1, 7, None, Outcome::Ok, Next::Delivered)], vec![]).await;
        let settled = subject.rows(id).await.settled.unwrap();
        assert_eq!((settled.ended, settled.round, settled.attempts), (Ended::Delivered, 2, 4), "{}", subject.name);
        assert_eq!((settled.revision, settled.facts.clone()), (2, facts(1)), "its own facts: {}", subject.name);
        assert_eq!(subject.reads.body(id).await.unwrap(), None, "{}: a body that arrived is not kept", subject.name);
        let (counts, _) = subject.reads.counts().await.unwrap();
        assert_eq!((counts.exhausted, counts.delivered), (1, 1), "{}", subject.name);
        assert_eq!(subject.store.space(SpaceAsk::BYTES).await.unwrap().parked_bytes, 0, "{}", subject.name);
    }
}

#[tokio::test]
async fn a_callback_with_an_open_round_is_listed_once_and_never_pruned() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![settle(1, 7, Some(epoch), Outcome::ServerError, Next::Exhausted)], vec![]).await;
        subject.lead(vec![Step::Resend], 1).await;
        // It is found by either of its rows, and once.
        let queue = |target: &str| vec![QueueMatch { team: None, target: target.to_owned() }];
        let all = CallbackFilter::default;
        for (filter, count) in [
            (all(), 1),
            (CallbackFilter { state: Some(State::Pending), ..all() }, 1),
            (CallbackFilter { state: Some(State::Exhausted), ..all() }, 1),
            (CallbackFilter { state: Some(State::Delivered), ..all() }, 0),
            (CallbackFilter { queues: Some(queue("default:live")), ..all() }, 1),
            (CallbackFilter { queues: Some(queue("https://a.example:443")), ..all() }, 1),
        ] {
            let page = Page { before: None, limit: 10 };
            let found = subject.reads.callbacks(filter.clone(), page).await.unwrap();
            assert_eq!(found.docs.len(), count, "{}: {filter:?}", subject.name);
        }
        let late = START.plus(Duration::from_secs(90 * 86_400));
        subject.clock.advance(Duration::from_secs(90 * 86_400));
        let pruned = subject.store.prune(all_before(late)).await.unwrap();
        assert_eq!(pruned.settled, 0, "{}", subject.name);
        assert_eq!(subject.amend(facts(1).id, Amendment::Cancel(Reason::Cancelled)).await, Amended::Changed);
        assert!(
            subject.store.space(SpaceAsk::BYTES).await.unwrap().kept_bytes > 0,
            "{}: its body is kept again",
            subject.name
        );
        let pruned = subject.store.prune(all_before(late)).await.unwrap();
        assert_eq!(pruned.settled, 1, "{}", subject.name);
        assert_eq!(subject.store.space(SpaceAsk::BYTES).await.unwrap().kept_bytes, 0, "{}", subject.name);
    }
}

fn all_before(at: callbackd::base::clock::Timestamp) -> PruneAsk {
    PruneAsk { now: at, settled_before: at, after: None, dead_letters_before: at, event_ids_before: at, at_most: 100 }
}

#[tokio::test]
async fn kept_bodies_stay_within_their_budget_and_the_oldest_go() {
    for (of, expected) in [(KeepBodies::None, 0), (KeepBodies::Failed, 5), (KeepBodies::All, 5)] {
        for name in ["memory", "sqlite", "postgres"] {
            let (clock, folder) = (Arc::new(ManualClock::new(START)), tempfile::tempdir().unwrap());
            // Room for five bodies of 101 bytes, as they are stored.
            let options = Options { keeping: Keeping { of, bytes: 530, least_free: 0 }, ..OPTIONS };
            let Stores { engine, reads, .. } = opened_with(options, name, &folder, &clock).await;
            let instance = engine.begin().await.unwrap().instance;
            let epoch = take(&*engine, instance, partition()).await.epoch;
            for n in 1..=9 {
                let Change::Settle(settle) = settle(n, 7, Some(epoch), Outcome::ServerError, Next::Exhausted) else {
                    unreachable!()
                };
                // It can't be made smaller.
                let mut body = vec![0; 100];
                aws_lc_rs::rand::fill(&mut body).unwrap();
                let changes = vec![Change::Settle(Box::new(Settle { body: body.into(), ..*settle }))];
                let batch = Batch { instance, number: n.into(), changes, watermarks: Vec::new() };
                engine.write(Arc::new(batch)).await.unwrap();
            }
            let mut kept = Vec::new();
            for n in 1..=9 {
                if reads.body(facts(n).id).await.unwrap().is_some() {
                    kept.push(n);
                }
            }
            // Some databases let several go at once.
            assert!(kept.len() <= expected, "{name}, {of:?}: {kept:?}");
            assert_eq!(kept.contains(&9), expected > 0, "{name}, {of:?}: {kept:?}");
            assert!(engine.space(SpaceAsk::BYTES).await.unwrap().kept_bytes <= 530, "{name}, {of:?}");
        }
    }
}

#[tokio::test]
async fn no_body_is_kept_while_the_disk_is_nearly_full() {
    let (clock, folder) = (Arc::new(ManualClock::new(START)), tempfile::tempdir().unwrap());
    let options = Options { keeping: Keeping { least_free: u64::MAX, ..OPTIONS.keeping }, ..OPTIONS };
    let Stores { engine, reads, .. } = opened_with(options, "sqlite", &folder, &clock).await;
    let instance = engine.begin().await.unwrap().instance;
    let epoch = take(&*engine, instance, partition()).await.epoch;
    let changes = vec![settle(1, 7, Some(epoch), Outcome::ServerError, Next::Exhausted)];
    engine.write(Arc::new(Batch { instance, number: 1, changes, watermarks: Vec::new() })).await.unwrap();
    assert_eq!(reads.body(facts(1).id).await.unwrap(), None);
    assert_eq!(engine.space(SpaceAsk::BYTES).await.unwrap().kept_bytes, 0);
}
