//! The corpus, which an independent program made: the verifier agrees with every case, and this crate makes each request
//! again as it was recorded.

#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may")]

use std::collections::BTreeSet;

use scale_callback_auth::conformance::{Case, Corpus, OwnKeys, Request};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, HmacKey, SigningSecret, Verified, Verifier, VerifyError};

const ID: &str = "cb_01kav9ft00zkek0kfes3qvf608";

fn incrementally<'r>(
    verifier: &Verifier,
    request: &'r Request,
    now: u64,
    size: usize,
) -> Result<Verified<'r>, VerifyError> {
    let mut verification = verifier.begin_incremental_at(&request.headers[..], &request.body, now)?;
    for _ in 0..100_000 {
        if let Some(verdict) = verification.step(size) {
            assert!(verification.step(size).is_some_and(|again| again.is_err()), "an acceptance is returned once");
            return verdict;
        }
    }
    panic!("steps of {size} bytes do not come to an end");
}

/// Why a request is refused, or why its body is not a callback.
fn refusal(verifier: &Verifier, request: &Request, now: u64) -> Option<&'static str> {
    let verdict = verifier.verify_at(&request.headers[..], &request.body, now);
    for size in [0, 7, 64, 1 << 20] {
        let stepped = incrementally(verifier, request, now, size);
        assert_eq!(format!("{stepped:?}"), format!("{verdict:?}"), "steps of {size} bytes");
    }
    match verdict {
        Err(error) => Some(error.code()),
        Ok(verified) => verified.callback().err().map(|error| error.code()),
    }
}

#[test]
fn the_corpus_is_as_large_as_it_says() {
    let corpus = Corpus::embedded();
    let inputs: BTreeSet<_> = corpus
        .cases()
        .map(|case| {
            let request = case.recorded();
            (case.verifier().to_owned(), request.headers, request.body)
        })
        .collect();
    assert_eq!(inputs.len(), corpus.cases().count(), "each input occurs once");
    assert!(inputs.len() >= 200, "{}", inputs.len());
    let refusals: Vec<_> = corpus.cases().filter_map(|case| case.refusal()).collect();
    assert!(refusals.len() >= 90, "{}", refusals.len());
    let reasons: BTreeSet<_> = refusals.into_iter().collect();
    assert!(reasons.len() >= 20, "{reasons:?}");
    assert!(corpus.cases().any(|case| !case.is_http()) && corpus.cases().filter(Case::is_http).count() > 200);
}

#[test]
fn the_verifier_agrees_with_every_case() {
    let corpus = Corpus::embedded();
    for case in corpus.cases() {
        let (verifier, request) = (corpus.verifier(case.verifier()), case.recorded());
        assert_eq!(
            refusal(&verifier, &request, corpus.now()),
            case.refusal(),
            "{}: {:?}",
            case.name(),
            request.headers
        );
        // The headers alone never give another verdict than the whole request.
        match verifier.check_headers_at(&request.headers[..], corpus.now()) {
            Ok(()) => assert!(
                case.refusal().is_none_or(|why| why.ends_with("mismatch") || why.starts_with("not_")),
                "{} can be refused by its headers",
                case.name()
            ),
            // If there are two reasons, the whole request may report the one that needs the body.
            Err(early) => assert!(
                case.refusal().is_some_and(|why| why == early.code() || why.ends_with("mismatch")),
                "{}: {early}",
                case.name()
            ),
        }
    }
}

#[test]
fn a_case_can_be_made_again_as_recorded_or_with_other_keys_and_another_time() {
    let corpus = Corpus::embedded();
    let own = OwnKeys {
        signing: Some("whsec_b3duIGtleXMgb2YgdGhpcyByZWNlaXZlciwgMzIgYiE=".to_owned()),
        auth: Some("live_auth_99999999999999999999999999999999".to_owned()),
        hmac: Some(format!("live_hmac_{}", "9".repeat(64))),
    };
    let single = |name: &str| match name {
        "signed" => Some(scale_callback_auth::Credential::signed(
            "own",
            scale_callback_auth::Mode::Live,
            own.signing.as_deref().unwrap(),
        )),
        "keyed" => Some(scale_callback_auth::Credential::signed_and_keyed(
            "own",
            own.signing.as_deref().unwrap(),
            own.auth.as_deref().unwrap(),
        )),
        "hmac" => Some(scale_callback_auth::Credential::hmac_header("own", own.hmac.as_deref().unwrap())),
        _ => None,
    };
    let later = corpus.now() + 1_000_000;
    let mut sent = 0;
    for case in corpus.cases() {
        let again = case.request(&OwnKeys::default(), ID, corpus.now()).unwrap();
        assert_eq!(again, case.recorded(), "{}", case.name());
        let Some(credential) = single(case.verifier()).filter(|_| case.is_http()) else { continue };
        sent += 1;
        let request = case.request(&own, "cb_01kav9ft00zkek0kfes3qvf609", later).unwrap();
        let verifier = Verifier::new(credential.unwrap());
        assert_eq!(refusal(&verifier, &request, later), case.refusal(), "{}: {:?}", case.name(), request.headers);
    }
    assert!(sent > 200, "{sent}");
}

#[test]
fn the_signer_makes_the_accepted_requests_byte_for_byte() {
    let whole: serde_json::Value = serde_json::from_str(include_str!("../testdata/conformance.json")).unwrap();
    let key = |kind: &str, name: &serde_json::Value| whole["keys"][kind][name.as_str().unwrap()].as_str().unwrap();
    let corpus = Corpus::embedded();
    let mut compared = 0;
    for (case, raw) in corpus.cases().zip(whole["cases"].as_array().unwrap()) {
        let recipe = &raw["recipe"];
        let lines = recipe["signatures"].as_array().unwrap();
        let plain = |entry: &serde_json::Value| entry.as_object().unwrap().keys().eq(["secret"]);
        let of_the_platform = lines.len() == 1
            && lines[0].as_array().unwrap().iter().all(plain)
            && recipe["timestamp"]["offset"] == 0
            && recipe["over"].is_null()
            && recipe["more"].is_null()
            && recipe["id"] == ID;
        if !of_the_platform {
            continue;
        }
        let secrets = lines[0].as_array().unwrap().iter().map(|entry| key("signing", &entry["secret"]));
        let auth = match recipe["auth"].as_object() {
            None => AuthHeader::Absent,
            Some(auth) if auth.keys().eq(["key"]) => {
                AuthHeader::Key(CallbackAuthKey::parse(key("auth", &auth["key"])).unwrap())
            }
            Some(auth) if auth.keys().eq(["hmac"]) => {
                let names = auth["hmac"].as_array().unwrap();
                let mut keys = names.iter().map(|name| HmacKey::parse(key("hmac", name)).unwrap());
                let (first, second) = (keys.next().unwrap(), keys.next());
                if keys.next().is_some() {
                    continue;
                }
                AuthHeader::Hmac(first, second)
            }
            Some(_) => continue,
        };
        let secrets = secrets.map(|secret| SigningSecret::parse(secret).unwrap()).collect();
        let recorded = case.recorded();
        let signed = Signer::new(secrets, auth).sign(ID, corpus.now(), &recorded.body).to_pairs(ID);
        let signed: Vec<_> = signed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(signed, recorded.headers, "{}", case.name());
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}

/// Secrets of published examples: of Standard Webhooks' specification and libraries, of this repository's own vectors, and
/// those that somebody types without thinking.
const PUBLISHED: [&str; 8] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "live_auth_ffffffffffffffffffffffffffffffff",
    "live_auth_0123456789abcdef0123456789abcdef",
    "live_auth_00112233445566778899aabbccddeeff",
    "test_auth_fedcba9876543210fedcba9876543210",
];

#[test]
fn the_keys_that_no_receiver_holds_are_nobody_elses() {
    let corpus = Corpus::embedded();
    for key in PUBLISHED {
        assert!(!corpus.holds_for_others(key), "{key}");
    }
    let vectors = include_str!("../testdata/vectors.json");
    let words =
        vectors.split('"').filter(|word| ["whsec_", "live_", "test_"].iter().any(|begin| word.starts_with(begin)));
    let words: Vec<_> = words.collect();
    assert!(words.len() > 4 && words.iter().all(|key| !corpus.holds_for_others(key)), "{words:?}");
    assert!(corpus.holds_for_others("whsec_JMcoZdyxUw7P0rQVNTJncgcfLr2IK/vG"), "the corpus has such keys");
    assert!(corpus.publishes("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"));
}

#[test]
fn a_right_proof_is_told_from_a_forged_one() {
    let corpus = Corpus::embedded();
    let carries = |name: &str| {
        let case = corpus.cases().find(|case| case.name() == name).unwrap_or_else(|| panic!("no case {name}"));
        case.carries_right_proof()
    };
    for lenient in [
        "seventeen signatures/signed",
        "signature non_canonical/signed",
        "signature with =A behind it/keyed",
        "two ids/signed",
        "signed main, auth key other/keyed",
        "hmac in upper case/hmac",
    ] {
        assert!(carries(lenient), "{lenient}");
    }
    for forged in [
        "signed other, auth key main/signed",
        "unsigned, auth key main/keyed",
        "signed main, auth key main/hmac",
        "signed over another body/signed",
        "signed over another id/hmac",
        "4,096 bytes of signatures, none of them right/signed",
        "a dot moved from id to time/signed",
    ] {
        assert!(!carries(forged), "{forged}");
    }
    // Whatever must be accepted carries one.
    let accepted = corpus.cases().filter(|case| case.refusal().is_none() && !case.verifier().contains("rotating"));
    let accepted: Vec<_> = accepted.filter(|case| ["signed", "keyed", "hmac"].contains(&case.verifier())).collect();
    assert!(accepted.len() > 20);
    for case in accepted {
        assert!(case.carries_right_proof(), "{}", case.name());
    }
}
