//! The contract of an operator's changes of one callback: each has the effect that `amendment::amend` gives.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::Clock as _;
use callbackd::model::amendment::{Amended, Amendment, amend};
use callbackd::model::attempt::Outcome;
use callbackd::model::endpoint::QueueKey;
use callbackd::model::lease::Token;
use callbackd::model::pause::PausedQueues;
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::Ended;
use callbackd::store::{ClaimAsk, SpaceAsk};

use super::OPTIONS;
use super::engine::{facts, park, settle, states, subjects};
use super::rounds::resend;

#[tokio::test]
async fn every_pair_of_rows_and_amendment_is_what_amend_says() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        let mut n = 0;
        let mut seen = Vec::new();
        for (state, lead) in states(epoch) {
            for amendment in [Amendment::RetryNow, Amendment::Cancel(Reason::Cancelled), resend()] {
                n += 1;
                for step in lead(n) {
                    subject.write(vec![step], vec![]).await;
                }
                subject.clock.advance(Duration::from_millis(10));
                let id = facts(n).id;
                let (before, attempts) = (subject.rows(id).await, subject.attempts(id).await);
                let (after, amended) = amend(&before, &amendment, subject.clock.now());
                let context = format!("{}: {state}, then {amendment:?}", subject.name);
                assert_eq!(subject.amend(id, amendment.clone()).await, amended, "{context}");
                assert_eq!(subject.rows(id).await, after, "{context}");
                assert_eq!(subject.attempts(id).await, attempts, "{context}");
                let keeps_body = subject.reads.body(id).await.unwrap().is_some();
                assert_eq!(keeps_body, after.pending.is_some() || OPTIONS.keeping.keeps(&after), "{context}");
                seen.push((state, amendment, amended));
            }
        }
        for (state, amendment, expected) in [
            ("nothing", Amendment::RetryNow, Amended::Unknown),
            ("nothing", Amendment::Cancel(Reason::Cancelled), Amended::Unknown),
            ("parked with its lease", Amendment::RetryNow, Amended::InFlight),
            ("parked with its lease", Amendment::Cancel(Reason::Cancelled), Amended::Changed),
            ("failed once", Amendment::RetryNow, Amended::Changed),
            ("failed once", Amendment::Cancel(Reason::Cancelled), Amended::Changed),
            ("delivered", Amendment::RetryNow, Amended::Ended(Ended::Delivered)),
            ("exhausted", Amendment::Cancel(Reason::Cancelled), Amended::Ended(Ended::Exhausted)),
            ("nothing", resend(), Amended::Unknown),
            ("failed once", resend(), Amended::Pending),
            ("exhausted", resend(), Amended::Changed),
            ("delivered", resend(), Amended::Changed),
        ] {
            let context = format!("{}: {state}, {amendment:?}", subject.name);
            assert!(seen.contains(&(state, amendment, expected)), "{context}");
        }
    }
}

#[tokio::test]
async fn a_retried_callback_is_claimed_at_once_with_the_tries_that_it_had() {
    for mut subject in subjects().await {
        let failed = settle(1, 7, Some(subject.epoch), Outcome::ServerError, super::engine::retry());
        subject.write(vec![failed], vec![]).await;
        let id = facts(1).id;
        let planned = subject.rows(id).await.pending.unwrap();
        assert!(planned.due > subject.clock.now(), "{}", subject.name);
        assert!(subject.store.claim(subject.ask()).await.unwrap().rows.is_empty(), "{}: not due yet", subject.name);
        assert_eq!(subject.amend(id, Amendment::RetryNow).await, Amended::Changed, "{}", subject.name);
        let claimed = subject.store.claim(subject.ask()).await.unwrap().rows;
        assert_eq!(claimed.len(), 1, "{}", subject.name);
        assert_eq!((claimed[0].0.facts.id, claimed[0].0.progress), (id, planned.progress), "{}", subject.name);
        let again = subject.amend(id, Amendment::RetryNow).await;
        assert_eq!(again, Amended::InFlight, "{}", subject.name);
    }
}

#[tokio::test]
async fn a_cancelled_callback_is_never_claimed_and_a_late_success_counts() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![park(1, None, epoch), park(2, Some(7), epoch)], vec![]).await;
        for n in [1, 2] {
            let amended = subject.amend(facts(n).id, Amendment::Cancel(Reason::Cancelled)).await;
            assert_eq!(amended, Amended::Changed, "{}", subject.name);
        }
        let ask = ClaimAsk { first_token: Token(50), ..subject.ask() };
        assert!(subject.store.claim(ask).await.unwrap().rows.is_empty(), "{}", subject.name);
        assert_eq!(
            subject.store.space(SpaceAsk::BYTES).await.unwrap().parked_bytes,
            0,
            "{}: their room is free",
            subject.name
        );
        let (counts, _) = subject.reads.counts().await.unwrap();
        assert_eq!(counts.abandoned, 2, "{}", subject.name);
        let settled = subject.rows(facts(1).id).await.settled.unwrap();
        assert_eq!((settled.ended, settled.attempts), (Ended::Abandoned(Reason::Cancelled), 0), "{}", subject.name);
        // The attempt that was under way arrived.
        subject.write(vec![settle(2, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![]).await;
        let settled = subject.rows(facts(2).id).await.settled.unwrap();
        assert_eq!((settled.ended, settled.revision), (Ended::Delivered, 2), "{}", subject.name);
        assert_eq!(subject.reads.body(facts(2).id).await.unwrap(), None::<Bytes>, "{}", subject.name);
    }
}

#[tokio::test]
async fn what_is_paused_is_not_claimed_and_does_not_stand_in_the_way() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![park(1, None, epoch), park(2, None, epoch)], vec![]).await;
        let queue = facts(1).queue.clone();
        let of_team = PausedQueues { teams: HashSet::from([Arc::clone(&queue.team)]), ..PausedQueues::default() };
        let of_queue = PausedQueues { queues: HashSet::from([queue]), ..PausedQueues::default() };
        for (n, paused) in [(0, of_team), (1, of_queue)] {
            let ask = ClaimAsk { first_token: Token(50 + n), paused, ..subject.ask() };
            let claimed = subject.store.claim(ask).await.unwrap();
            assert!(claimed.rows.is_empty(), "{}", subject.name);
            // It does not ask for another claim at once.
            let soon = subject.clock.now().plus(Duration::from_millis(500));
            assert!(claimed.next_at.is_none_or(|at| at > soon), "{}: {:?}", subject.name, claimed.next_at);
        }
        subject.clock.advance(Duration::from_secs(5));
        let ask = ClaimAsk { first_token: Token(60), ..subject.ask() };
        assert_eq!(subject.store.claim(ask).await.unwrap().rows.len(), 2, "{}: not for ever", subject.name);
    }
}

#[tokio::test]
async fn the_callbacks_of_a_queue_are_made_due_now_in_pieces_the_earliest_first() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        for n in 1..=5 {
            let Next::Retry { due, since, horizon } = super::engine::retry() else { unreachable!() };
            let next = Next::Retry { due: due.plus(Duration::from_secs(n.into())), since, horizon };
            subject.write(vec![settle(n, 7, Some(epoch), Outcome::ServerError, next)], vec![]).await;
        }
        // This one is under way.
        subject.write(vec![park(6, Some(9), epoch)], vec![]).await;
        let queue = facts(1).queue.clone();
        let elsewhere = QueueKey { team: "team_b".into(), ..queue.clone() };
        assert_eq!(subject.store.retry_queue(elsewhere, 10).await.unwrap(), 0, "{}", subject.name);
        assert_eq!(subject.store.retry_queue(queue.clone(), 3).await.unwrap(), 3, "{}", subject.name);
        let claimed = subject.store.claim(subject.ask()).await.unwrap().rows;
        let mut ids: Vec<_> = claimed.iter().map(|(row, _)| row.facts.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3].map(|n| facts(n).id), "{}: the earliest ones", subject.name);
        assert!(claimed.iter().all(|(row, _)| row.progress.tries == 1), "{}: no try is taken away", subject.name);
        assert_eq!(subject.store.retry_queue(queue.clone(), 3).await.unwrap(), 2, "{}", subject.name);
        assert_eq!(subject.store.retry_queue(queue, 3).await.unwrap(), 0, "{}", subject.name);
        let ask = ClaimAsk { first_token: Token(2_000), ..subject.ask() };
        assert_eq!(subject.store.claim(ask).await.unwrap().rows.len(), 2, "{}", subject.name);
    }
}
