//! The replay guard against a plain model, and the promises of its tokens.

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
/// How much longer than it verifies a callback is remembered.
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
fn a_claim_is_fresh_once_and_done_until_no_replay_could_verify() {
    let guard = MemoryGuard::new(10, LEASE);
    let Claim::Fresh(token) = claim(&guard, 1, START, START) else { panic!("the first is fresh") };
    assert_eq!(name(&claim(&guard, 1, START, START + 5)), "in flight");
    token.done();
    assert_eq!(name(&claim(&guard, 1, START, START + 300)), "done", "the last second in which it verifies");
    // A retry of the platform has a new time, and prolongs what is remembered.
    assert_eq!(name(&claim(&guard, 1, START + 300, START + 300)), "done");
    assert_eq!(name(&claim(&guard, 1, START + 300, START + 600)), "done");
    let forgotten = START + 600 + MARGIN + 1;
    assert_eq!(name(&claim(&guard, 1, forgotten, forgotten)), "fresh", "forgotten: no replay of it verifies");
}

#[test]
fn a_dropped_token_releases_and_a_lost_one_ends_with_its_lease() {
    let guard = MemoryGuard::new(10, LEASE);
    let Claim::Fresh(token) = claim(&guard, 1, START, START) else { panic!("fresh") };
    drop(token);
    let Claim::Fresh(lost) = claim(&guard, 1, START, START) else { panic!("released") };
    assert_eq!(name(&claim(&guard, 1, START, START + LEASE)), "in flight");
    let Claim::Fresh(second) = claim(&guard, 1, START, START + LEASE + 1) else { panic!("the lease is over") };
    // The first comes back: its drop takes nothing from the second.
    drop(lost);
    assert_eq!(name(&claim(&guard, 1, START, START + LEASE + 2)), "in flight");
    second.done();
    assert_eq!(name(&claim(&guard, 1, START, START + LEASE + 3)), "done");
    // One whose lease had run out handled it all the same, and the next one let go.
    let Claim::Fresh(slow) = claim(&guard, 2, START, START) else { panic!("fresh") };
    let Claim::Fresh(next) = claim(&guard, 2, START, START + LEASE + 1) else { panic!("the lease is over") };
    drop(next);
    slow.done();
    assert_eq!(name(&claim(&guard, 2, START, START + LEASE + 2)), "done");
}

#[test]
fn a_thread_that_waited_between_verifying_and_claiming_handles_nothing_again() {
    let guard = MemoryGuard::new(10, LEASE);
    let Claim::Fresh(token) = claim(&guard, 1, START, START) else { panic!("fresh") };
    token.done();
    // Another thread's clock is past the last second of the first one's signature, and forgets what it may.
    let _ = claim(&guard, 2, START + 301, START + 301);
    assert_eq!(name(&claim(&guard, 1, START, START + 300)), "done");
}

#[test]
fn a_full_guard_refuses_and_forgets_none_early() {
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
fn credentials_are_apart_by_name_and_mode_and_keys_rotate_beneath_them() {
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

/// What a guard should remember, said plainly.
#[derive(Default)]
struct Model {
    /// By id: the claim under way with its lease's end, and when it is forgotten.
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
    fn every_sequence_comes_out_as_the_model_says(acts in proptest::collection::vec(act(), 1..80)) {
        let (guard, mut model, mut now) = (MemoryGuard::new(CAPACITY, LEASE), Model::default(), START);
        // Tokens with their id, the end of their lease, and until when they are remembered once done.
        let mut tokens: Vec<(u8, u64, u64, MemoryToken)> = Vec::new();
        // Handled after another had taken over and let go: remembered although no room was kept.
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
                    // It releases its own claim, and no later one.
                    if model.known.get(&id).is_some_and(|(claim, _)| *claim == Some(until)) {
                        model.known.remove(&id);
                    }
                }
                Act::Done(_) | Act::Drop(_) => {}
            }
        }
    }
}
