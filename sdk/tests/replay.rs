//! The replay guard compared with a simple model, and what its tokens promise.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, missing_docs, reason = "a test may")]

use std::collections::HashMap;

use proptest::prelude::*;
use scale_callback_auth::replay::{Claim, MemoryGuard, MemoryToken, ReplayGuard as _, Token as _};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{Credential, Mode, SigningSecret, Verifier};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const START: u64 = 1_764_000_000;
const LEASE: u64 = 60;
const CAPACITY: usize = 4;
/// How many seconds a callback is remembered after its signature stops verifying.
const MARGIN: u64 = 60;

/// Claims the callback `id`, signed at `signed_at`, while the clock shows `now`.
fn claim(guard: &MemoryGuard, id: u8, signed_at: u64, now: u64) -> Claim<MemoryToken> {
    let verifier = Verifier::new(Credential::signed("live", Mode::Live, SECRET).unwrap());
    let id = format!("cb_{id}");
    let signer = Signer::new(vec![SigningSecret::parse(SECRET).unwrap()], AuthHeader::Absent);
    let headers = signer.sign(&id, signed_at, b"{}").to_pairs(&id);
    let verified = verifier.verify_at(&headers[..], b"{}", now).unwrap();
    guard.claim_at(verifier.credential(&verified).unwrap(), &verified, now)
}

fn name(claim: &Claim<MemoryToken>) -> &'static str {
    match claim {
        Claim::Fresh(_) => "fresh",
        Claim::InFlight => "in flight",
        Claim::Done => "done",
        Claim::Full => "full",
    }
}

#[test]
fn a_callback_is_fresh_once_and_then_done_until_no_replay_can_verify() {
    let guard = MemoryGuard::new(10, LEASE);
    let Claim::Fresh(token) = claim(&guard, 1, START, START) else { panic!("the first is fresh") };
    assert_eq!(name(&claim(&guard, 1, START, START + 5)), "in flight");
    token.done();
    assert_eq!(name(&claim(&guard, 1, START, START + 300)), "done", "this is the last second in which it verifies");
    // A retry by the platform has a new time, so that the guard remembers the callback for longer.
    assert_eq!(name(&claim(&guard, 1, START + 300, START + 300)), "done");
    assert_eq!(name(&claim(&guard, 1, START + 300, START + 600)), "done");
    let forgotten = START + 600 + MARGIN + 1;
    assert_eq!(
        name(&claim(&guard, 1, forgotten, forgotten)),
        "fresh",
        "it may be forgotten, because no replay of it verifies"
    );
}

#[test]
fn dropping_a_token_releases_the_claim_and_a_lost_token_ends_with_its_lease() {
    let guard = MemoryGuard::new(10, LEASE);
    let Claim::Fresh(token) = claim(&guard, 1, START, START) else { panic!("fresh") };
    drop(token);
    let Claim::Fresh(lost) = claim(&guard, 1, START, START) else { panic!("released") };
    assert_eq!(name(&claim(&guard, 1, START, START + LEASE)), "in flight");
    let Claim::Fresh(second) = claim(&guard, 1, START, START + LEASE + 1) else { panic!("the lease is over") };
    // The first token is dropped late. That must not release the claim of the second one.
    drop(lost);
    assert_eq!(name(&claim(&guard, 1, START, START + LEASE + 2)), "in flight");
    second.done();
    assert_eq!(name(&claim(&guard, 1, START, START + LEASE + 3)), "done");
    // The first claim's lease ran out and the next claim was released, but the first one handled the callback after all.
    let Claim::Fresh(slow) = claim(&guard, 2, START, START) else { panic!("fresh") };
    let Claim::Fresh(next) = claim(&guard, 2, START, START + LEASE + 1) else { panic!("the lease is over") };
    drop(next);
    slow.done();
    assert_eq!(name(&claim(&guard, 2, START, START + LEASE + 2)), "done");
}

#[test]
fn a_thread_that_waits_between_verifying_and_claiming_handles_nothing_twice() {
    let guard = MemoryGuard::new(10, LEASE);
    let Claim::Fresh(token) = claim(&guard, 1, START, START) else { panic!("fresh") };
    token.done();
    // Another thread claims after the first callback's signature has expired, and forgets what the guard may forget.
    drop(claim(&guard, 2, START + 301, START + 301));
    assert_eq!(name(&claim(&guard, 1, START, START + 300)), "done");
}

#[test]
fn a_full_guard_refuses_new_callbacks_and_forgets_none_early() {
    let guard = MemoryGuard::new(2, LEASE);
    for id in [1, 2] {
        let Claim::Fresh(token) = claim(&guard, id, START, START) else { panic!("fresh") };
        token.done();
    }
    assert_eq!(name(&claim(&guard, 3, START, START + 300)), "full");
    assert_eq!(name(&claim(&guard, 1, START, START + 300)), "done");
    assert_eq!(name(&claim(&guard, 3, START + 361, START + 361)), "fresh");
}

#[test]
fn name_and_mode_identify_a_credential_while_its_keys_rotate() {
    let guard = MemoryGuard::new(10, LEASE);
    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let claim_with = |name: &str, mode: Mode, secret: &str| {
        let verifier = Verifier::new(Credential::signed(name, mode, secret).unwrap());
        let signer = Signer::new(vec![SigningSecret::parse(secret).unwrap()], AuthHeader::Absent);
        let headers = signer.sign("cb_1", START, b"{}").to_pairs("cb_1");
        let verified = verifier.verify_at(&headers[..], b"{}", START).unwrap();
        guard.claim_at(verifier.credential(&verified).unwrap(), &verified, START)
    };
    let Claim::Fresh(token) = claim_with("acme", Mode::Live, SECRET) else { panic!("fresh") };
    token.done();
    assert_eq!(name(&claim_with("acme", Mode::Live, other)), "done", "the next secret of the same credential");
    assert_eq!(name(&claim_with("acme", Mode::Test, SECRET)), "fresh");
    assert_eq!(name(&claim_with("globex", Mode::Live, SECRET)), "fresh");
}

/// What a guard should remember, written in the simplest way.
#[derive(Default)]
struct Model {
    /// By id: the end of the lease of the claim in progress, and the last second in which the id is remembered.
    known: HashMap<u8, (Option<u64>, u64)>,
}

impl Model {
    fn claim(&mut self, id: u8, signed_at: u64, now: u64) -> &'static str {
        self.known.retain(|_, (_, end)| *end >= now);
        let signed_until = signed_at + 300 + MARGIN;
        let is_full = self.known.len() >= CAPACITY;
        match self.known.get_mut(&id) {
            Some((None, end)) => {
                *end = (*end).max(signed_until);
                return "done";
            }
            Some((Some(until), end)) if now <= *until => {
                *end = (*end).max(signed_until);
                return "in flight";
            }
            Some(_) => {}
            None if is_full => return "full",
            None => {}
        }
        let end = self.known.get(&id).map_or(0, |(_, end)| *end).max(signed_until).max(now + LEASE);
        self.known.insert(id, (Some(now + LEASE), end));
        "fresh"
    }
}

#[derive(Debug, Clone)]
enum Act {
    Claim { id: u8, behind: u64 },
    Done(usize),
    Drop(usize),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u8..7, 0_u64..300).prop_map(|(id, behind)| Act::Claim { id, behind }),
        2 => (0_usize..8).prop_map(Act::Done),
        1 => (0_usize..8).prop_map(Act::Drop),
        2 => (1_u64..200).prop_map(Act::Wait),
    ]
}

proptest! {
    #[test]
    fn every_sequence_ends_as_the_model_says(acts in proptest::collection::vec(act(), 1..80)) {
        let (guard, mut model, mut now) = (MemoryGuard::new(CAPACITY, LEASE), Model::default(), START);
        // Each token with its id, the end of its lease, and until when its callback is remembered once it is done.
        let mut tokens: Vec<(u8, u64, u64, MemoryToken)> = Vec::new();
        // How many were done after another claim had taken over and was released. They are remembered above the capacity.
        let mut late = 0;
        for act in acts {
            match act {
                Act::Wait(seconds) => now += seconds,
                Act::Claim { id, behind } => {
                    let signed_at = now - behind;
                    let claimed = claim(&guard, id, signed_at, now);
                    prop_assert_eq!(name(&claimed), model.claim(id, signed_at, now));
                    if let Claim::Fresh(token) = claimed {
                        tokens.push((id, now + LEASE, signed_at + 300 + MARGIN, token));
                    }
                    prop_assert!(guard.len() <= CAPACITY + late);
                }
                Act::Done(at) if at < tokens.len() => {
                    let (id, _, signed_until, token) = tokens.remove(at);
                    token.done();
                    late += usize::from(!model.known.contains_key(&id));
                    let known = model.known.entry(id).or_insert((None, 0));
                    *known = (None, known.1.max(signed_until));
                }
                Act::Drop(at) if at < tokens.len() => {
                    let (id, until, _, token) = tokens.remove(at);
                    drop(token);
                    // Dropping releases only the token's own claim, never a later one.
                    if model.known.get(&id).is_some_and(|(claim, _)| *claim == Some(until)) {
                        model.known.remove(&id);
                    }
                }
                Act::Done(_) | Act::Drop(_) => {}
            }
        }
    }
}
