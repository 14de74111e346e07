//! Requests that must be refused, each with its reason; any change of a single bit is refused, too.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "a test may")]

use proptest::prelude::*;
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{
    CallbackAuthKey, Credential, HmacKey, KeyError, Mode, ParseError, SigningSecret, Verifier, VerifyError,
};

const NOW: u64 = 1_764_000_000;
const ID: &str = "cb_01kav9ft00zkek0kfes3qvf608";
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const LIVE: &str = "live_auth_0123456789abcdef0123456789abcdef";
const TEST: &str = "test_auth_0123456789abcdef0123456789abcdef";
const HMAC: &str = "live_hmac_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const BODY: &[u8] = br#"{"task":{"task_id":"t1","is_test":false},"task_id":"t1"}"#;

type Pairs = Vec<(&'static str, String)>;

fn signed_by(secret: &str, auth: AuthHeader) -> Pairs {
    Signer::new(vec![SigningSecret::parse(secret).unwrap()], auth).sign(ID, NOW, BODY).to_pairs(ID)
}

fn key(text: &str) -> AuthHeader {
    AuthHeader::Key(CallbackAuthKey::parse(text).unwrap())
}

fn hmac() -> AuthHeader {
    AuthHeader::Hmac(HmacKey::parse(HMAC).unwrap(), None)
}

fn signed() -> Verifier {
    Verifier::new(Credential::signed("live", Mode::Live, SECRET).unwrap())
}

fn keyed() -> Verifier {
    Verifier::new(Credential::signed_and_keyed("live", SECRET, LIVE).unwrap())
}

fn hmac_header() -> Verifier {
    Verifier::new(Credential::hmac_header("live", HMAC).unwrap())
}

fn with(mut pairs: Pairs, name: &'static str, value: &str) -> Pairs {
    pairs.retain(|(known, _)| *known != name);
    pairs.push((name, value.to_owned()));
    pairs
}

fn without(mut pairs: Pairs, name: &str) -> Pairs {
    pairs.retain(|(known, _)| *known != name);
    pairs
}

fn twice(mut pairs: Pairs, name: &str) -> Pairs {
    let again = pairs.iter().find(|(known, _)| *known == name).unwrap().clone();
    pairs.push(again);
    pairs
}

fn refusal(verifier: &Verifier, pairs: &Pairs) -> Option<VerifyError> {
    verifier.verify_at(&pairs[..], BODY, NOW).err()
}

#[test]
fn each_malformed_request_is_refused_with_its_reason() {
    use VerifyError as E;
    let good = || signed_by(SECRET, key(LIVE));
    assert_eq!(refusal(&signed(), &good()), None);
    assert_eq!(refusal(&keyed(), &good()), None);
    let many = |count: usize| vec!["v1,x"; count].join(" ");
    for (pairs, reason) in [
        (without(good(), "webhook-id"), E::IdMissing),
        (twice(good(), "webhook-id"), E::IdDuplicate),
        (with(good(), "webhook-id", "a.b"), E::IdInvalid),
        (with(good(), "webhook-id", ""), E::IdInvalid),
        (with(good(), "webhook-id", &"x".repeat(65)), E::IdInvalid),
        (without(good(), "webhook-timestamp"), E::TimestampMissing),
        (twice(good(), "webhook-timestamp"), E::TimestampDuplicate),
        (with(good(), "webhook-timestamp", "+1764000000"), E::TimestampInvalid),
        (with(good(), "webhook-timestamp", "01764000000"), E::TimestampInvalid),
        (with(good(), "webhook-timestamp", "1764000000.0"), E::TimestampInvalid),
        (with(good(), "webhook-timestamp", "1764000000000"), E::TimestampInvalid),
        (with(good(), "webhook-timestamp", "-1"), E::TimestampInvalid),
        (with(good(), "webhook-timestamp", ""), E::TimestampInvalid),
        (with(good(), "webhook-timestamp", "999999999999"), E::TimestampTooNew),
        (with(good(), "webhook-timestamp", "1"), E::TimestampTooOld),
        (without(good(), "webhook-signature"), E::SignatureMissing),
        (with(good(), "webhook-signature", ""), E::SignatureMismatch),
        (with(good(), "webhook-signature", "v2,abc"), E::SignatureMismatch),
        (with(good(), "webhook-signature", &many(17)), E::TooManySignatures),
        (with(good(), "webhook-signature", &format!("v1,{}", "x".repeat(4_100))), E::HeaderTooLong),
        (signed_by(OTHER, key(LIVE)), E::SignatureMismatch),
        (without(good(), "scale-callback-auth"), E::AuthMissing),
        (twice(good(), "scale-callback-auth"), E::AuthDuplicate),
        (with(good(), "scale-callback-auth", TEST), E::AuthMismatch),
        (with(good(), "scale-callback-auth", &LIVE[..41]), E::AuthMismatch),
        (with(good(), "scale-callback-auth", &"x".repeat(257)), E::HeaderTooLong),
        (with(good(), "scale-callback-auth", &LIVE.to_uppercase()), E::AuthMismatch),
    ] {
        assert_eq!(refusal(&keyed(), &pairs), Some(reason), "{pairs:?}");
    }
}

#[test]
fn the_hmac_form_is_read_strictly_and_never_falls_back() {
    use VerifyError as E;
    let good = || signed_by(SECRET, hmac());
    assert_eq!(refusal(&hmac_header(), &good()), None);
    let value = good().into_iter().find(|(name, _)| *name == "scale-callback-auth").unwrap().1;
    let digits = &value[value.len() - 64..];
    for (auth, reason) in [
        (HMAC.to_owned(), E::AuthMalformed),
        (LIVE.to_owned(), E::AuthMalformed),
        (format!("t={NOW},v1={}", digits.to_uppercase()), E::AuthMalformed),
        (format!("t={NOW}, v1={digits}"), E::AuthMalformed),
        (format!("v1={digits},t={NOW}"), E::AuthMalformed),
        (format!("t={NOW}"), E::AuthMalformed),
        (format!("t={NOW},v1={digits},v1={digits},v1={digits}"), E::AuthMalformed),
        (format!("t={NOW},v1={}", &digits[1..]), E::AuthMalformed),
        (format!("t={NOW},v1={digits},v2={digits}"), E::AuthMalformed),
        (format!("t=0{NOW},v1={digits}"), E::AuthMalformed),
        (format!("t={},v1={digits}", NOW + 1), E::AuthTimestampDiffers),
        (format!("t={NOW},v1={}", "0".repeat(64)), E::AuthMismatch),
    ] {
        assert_eq!(refusal(&hmac_header(), &with(good(), "scale-callback-auth", &auth)), Some(reason), "{auth}");
    }
    let second = format!("t={NOW},v1={},v1={digits}", "0".repeat(64));
    assert_eq!(
        refusal(&hmac_header(), &with(good(), "scale-callback-auth", &second)),
        None,
        "a second key while rotating"
    );
    // A verifier for the key form does not accept the hmac form. The reverse is tested above.
    assert_eq!(refusal(&keyed(), &good()), Some(E::AuthMismatch));
}

#[test]
fn one_credential_must_accept_all_of_a_request_and_any_credential_may() {
    let both = Verifier::new(Credential::signed_and_keyed("live", SECRET, LIVE).unwrap())
        .or_credential(Credential::signed_and_keyed("test", OTHER, TEST).unwrap());
    assert_eq!(refusal(&both, &signed_by(SECRET, key(LIVE))), None);
    let test = signed_by(OTHER, key(TEST));
    assert_eq!(both.verify_at(&test[..], BODY, NOW).unwrap().mode(), Mode::Test);
    assert_eq!(
        refusal(&both, &signed_by(SECRET, key(TEST))),
        Some(VerifyError::AuthMismatch),
        "a test key, a live signature"
    );
    assert!(refusal(&both, &signed_by(OTHER, key(LIVE))).is_some());
    assert_eq!(refusal(&both.clone().require_live(), &test), Some(VerifyError::TestRefused));
    assert_eq!(refusal(&both.require_live(), &signed_by(SECRET, key(LIVE))), None);
    // Two secrets in one header.
    let rotating = Signer::new(
        vec![SigningSecret::parse(OTHER).unwrap(), SigningSecret::parse(SECRET).unwrap()],
        AuthHeader::Absent,
    );
    assert_eq!(refusal(&signed(), &rotating.sign(ID, NOW, BODY).to_pairs(ID)), None);
}

#[test]
fn the_timestamp_may_differ_by_300_seconds_in_both_directions() {
    let pairs = signed_by(SECRET, AuthHeader::Absent);
    for (now, refused) in [
        (NOW - 300, None),
        (NOW - 301, Some(VerifyError::TimestampTooNew)),
        (NOW + 300, None),
        (NOW + 301, Some(VerifyError::TimestampTooOld)),
        (0, Some(VerifyError::TimestampTooNew)),
        (u64::MAX, Some(VerifyError::TimestampTooOld)),
    ] {
        assert_eq!(signed().verify_at(&pairs[..], BODY, now).err(), refused, "{now}");
    }
}

#[test]
fn a_static_key_accepts_any_body() {
    let verifier = Verifier::new(Credential::static_key_authenticates_no_body("plain", LIVE).unwrap());
    let pairs = signed_by(OTHER, key(LIVE));
    assert!(verifier.verify_at(&pairs[..], b"any body at all", NOW).is_ok());
    assert!(verifier.verify_at(&with(pairs, "scale-callback-auth", TEST)[..], BODY, NOW).is_err());
}

#[test]
fn malformed_keys_are_refused() {
    for (text, error) in [
        ("", KeyError::Empty),
        (" whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", KeyError::Whitespace),
        ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n", KeyError::Whitespace),
        ("C2FVsBQIhrscChlQIMV+b5sSYspob7oD", KeyError::Prefix),
        ("whsec_!!!", KeyError::Malformed),
        ("whsec_c2hvcnQ=", KeyError::Length),
    ] {
        assert_eq!(SigningSecret::parse(text).err(), Some(error), "{text:?}");
    }
    assert_eq!(CallbackAuthKey::parse(&LIVE[..41]).err(), Some(KeyError::Malformed));
    assert_eq!(CallbackAuthKey::parse(&LIVE.to_uppercase()).err(), Some(KeyError::Prefix));
    assert_eq!(CallbackAuthKey::parse(HMAC).err(), Some(KeyError::Prefix));
    assert_eq!(HmacKey::parse(&HMAC[..73]).err(), Some(KeyError::Malformed));
    assert_eq!(CallbackAuthKey::parse(TEST).unwrap().mode(), Mode::Test);
    assert_eq!(KeyError::Prefix.code(), "key_prefix");
}

#[test]
fn a_verified_body_is_parsed_and_stays_opaque() {
    let read = |body: &'static str| {
        let pairs = Signer::new(vec![SigningSecret::parse(SECRET).unwrap()], AuthHeader::Absent)
            .sign(ID, NOW, body.as_bytes())
            .to_pairs(ID);
        signed().verify_at(&pairs[..], body.as_bytes(), NOW).unwrap().callback()
    };
    let callback = read(r#"{"task":{"task_id":"t","type":"imageannotation","status":"completed","is_test":true,"x":1e400},"response":{"\ud800":26.198676151772684},"task_id":"t\u0031"}"#).unwrap();
    assert_eq!(
        (callback.task_id(), callback.task_type(), callback.status()),
        ("t1", Some("imageannotation"), Some("completed"))
    );
    assert!(callback.is_test());
    assert_eq!(callback.response().unwrap().get(), r#"{"\ud800":26.198676151772684}"#);
    assert!(callback.task().get().contains("1e400"));
    assert!(read(r#"{"task":{},"task_id":"t"}"#).unwrap().response().is_none());
    for (body, error) in [
        ("", ParseError::NotJson),
        ("[]", ParseError::NotJson),
        (r#"{"task":{},"task_id":"t"} x"#, ParseError::NotJson),
        (r#"{"task":{}}"#, ParseError::NotACallback),
        (r#"{"task":7,"task_id":"t"}"#, ParseError::NotACallback),
        (r#"{"task":{},"task_id":7}"#, ParseError::NotACallback),
    ] {
        assert_eq!(read(body).err(), Some(error), "{body}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_flipped_bit_is_refused(part in 0..5_usize, at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut body = BODY.to_vec();
        let rotating = AuthHeader::Hmac(HmacKey::parse(HMAC).unwrap(), None);
        let mut pairs: Vec<(&'static str, Vec<u8>)> =
            signed_by(SECRET, rotating).into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        // 0 to 3 choose one of the four headers, and 4 chooses the body.
        let target = pairs.get_mut(part).map_or(&mut body, |(_, value)| value);
        let place = at.index(target.len());
        target[place] ^= 1 << bit;
        let both = |verifier: &Verifier| verifier.verify_at(&pairs[..], &body, NOW).is_ok();
        let changed = if part < 4 { pairs[part].0 } else { "body" };
        match changed {
            "webhook-signature" => prop_assert!(!both(&signed())),
            "scale-callback-auth" => prop_assert!(!both(&hmac_header())),
            _ => prop_assert!(!both(&signed()) && !both(&hmac_header())),
        }
    }

    #[test]
    fn garbage_never_panics(
        id in ".{0,80}", time in ".{0,20}", signature in ".{0,200}", auth in ".{0,300}", body in prop::collection::vec(any::<u8>(), 0..200), now in any::<u64>(),
    ) {
        let pairs = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature), ("scale-callback-auth", auth)];
        for verifier in [signed(), keyed(), hmac_header()] {
            prop_assert!(verifier.verify_at(&pairs[..], &body, now).is_err());
        }
    }
}
