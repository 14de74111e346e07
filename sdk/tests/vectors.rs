//! Our signatures, compared with two independent programs: a Python script and the `standardwebhooks` crate.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "a test may")]

use base64::engine::{Engine as _, general_purpose::STANDARD};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, Credential, HmacKey, Mode, SigningSecret, Verifier};
use serde_json::Value;

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../testdata/vectors.json")).unwrap()
}

#[test]
fn signatures_are_what_an_independent_program_computes() {
    let vectors = vectors();
    assert!(vectors.len() >= 100);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let body = STANDARD.decode(text("body_base64")).unwrap();
        let time = vector["timestamp"].as_u64().unwrap();
        let secret = SigningSecret::parse(text("secret")).unwrap();
        let key = HmacKey::parse(text("hmac_key")).unwrap();
        let signed = Signer::new(vec![secret], AuthHeader::Hmac(key, None)).sign(text("id"), time, &body);
        assert_eq!(signed.signature, text("signature"), "{vector}");
        assert_eq!(signed.auth.as_deref(), Some(text("auth")), "{vector}");
        let headers = [
            ("Webhook-Id", text("id").to_owned()),
            ("WEBHOOK-TIMESTAMP", time.to_string()),
            ("webhook-signature", text("signature").to_owned()),
            ("scale-callback-auth", text("auth").to_owned()),
        ];
        for credential in [
            Credential::signed("signed", Mode::Live, text("secret")).unwrap(),
            Credential::hmac_header("hmac", text("hmac_key")).unwrap(),
        ] {
            let verifier = Verifier::new(credential);
            let verified = verifier.verify_at(&headers[..], &body, time).unwrap();
            assert_eq!((verified.id(), verified.timestamp(), verified.body()), (text("id"), time, &body[..]));
            assert!(verifier.credential(&verified).is_some());
        }
    }
}

#[test]
fn the_published_standard_webhooks_vectors_hold() {
    for (secret, id, time, body, signature) in [
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ] {
        let signer = Signer::new(vec![SigningSecret::parse(secret).unwrap()], AuthHeader::Absent);
        assert_eq!(signer.sign(id, time, body.as_bytes()).signature, signature);
    }
}

#[test]
fn the_standard_webhooks_crate_and_this_one_accept_each_others_signatures() {
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let theirs = standardwebhooks::Webhook::new(secret).unwrap();
    let signer = Signer::new(vec![SigningSecret::parse(secret).unwrap()], AuthHeader::Absent);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for body in ["{}", "", "{\"ü\":\"📦\"}", "x"] {
        let ours = signer.sign("msg_1", now, body.as_bytes());
        let signature = theirs.sign("msg_1", i64::try_from(now).unwrap(), body.as_bytes()).unwrap();
        assert_eq!(ours.signature, signature);
        let mut headers = http::HeaderMap::new();
        for (name, value) in ours.to_pairs("msg_1") {
            headers.insert(name, value.parse().unwrap());
        }
        theirs.verify(body.as_bytes(), &headers).unwrap();
        let pairs = [
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", now.to_string()),
            ("webhook-signature", signature),
        ];
        let verifier = Verifier::new(Credential::signed("s", Mode::Live, secret).unwrap());
        verifier.verify(&pairs[..], body.as_bytes()).unwrap();
    }
}

#[test]
fn debug_output_shows_nothing_of_the_keys() {
    let key = CallbackAuthKey::parse("live_auth_0123456789abcdef0123456789abcdef").unwrap();
    let secret = SigningSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
    let signer = Signer::new(vec![secret], AuthHeader::Key(key));
    let shown = format!("{signer:?} {:?}", signer.sign("x", 1, b""));
    assert!(!shown.contains("0123456789") && !shown.contains("C2FV") && !shown.contains("v1,"), "{shown}");
}
