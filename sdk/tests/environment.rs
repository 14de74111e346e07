//! A verifier from environment variables: what is accepted, and the sentence for each mistake.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may")]

use std::ffi::OsString;

use scale_callback_auth::testing::{FakeClock, Platform};
use scale_callback_auth::{EnvError, EventTime, Mode, Verifier};

const BODY: &[u8] = br#"{"task":{"task_id":"t1"},"task_id":"t1"}"#;

fn from(variables: &[(&str, &str)]) -> Result<Verifier, EnvError> {
    Verifier::from_variables(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

#[test]
fn live_keys_test_keys_and_rotations_come_from_variables_and_files() {
    let (live, test, clock) = (Platform::live(), Platform::test(), FakeClock::new());
    let folder = std::env::temp_dir().join(format!("scale-callback-auth-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secret");
    std::fs::write(&file, format!("{}\n{}\n", live.signing_secret(), live.next_signing_secret())).unwrap();
    let path = file.display().to_string();
    let keys = (live.callback_auth_key(), test.hmac_key());
    let verifier = from(&[
        ("SCALE_CALLBACK_SIGNING_SECRET_FILE", &path),
        ("SCALE_CALLBACK_AUTH_KEY", &keys.0),
        ("SCALE_CALLBACK_TEST_HMAC_KEY", &keys.1),
    ])
    .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let accepted = |request: &scale_callback_auth::testing::TestRequest| {
        verifier.verify_at(&request.headers[..], &request.body, clock.now()).map(|verified| verified.mode())
    };
    assert_eq!(accepted(&live.signed(BODY, &clock)), Ok(Mode::Live));
    assert_eq!(accepted(&live.rotated(BODY, &clock)), Ok(Mode::Live));
    assert_eq!(accepted(&test.signed_with_hmac(BODY, &clock)), Ok(Mode::Test));
    assert!(accepted(&test.signed(BODY, &clock)).is_err(), "a test callback with a form that is not configured");
    assert!(accepted(&live.forged(BODY, &clock)).is_err());
}

#[test]
fn each_mistake_is_one_sentence_that_quotes_no_key() {
    let (live, test) = (Platform::live(), Platform::test());
    let (live_key, test_key, secret) = (live.callback_auth_key(), test.callback_auth_key(), live.signing_secret());
    let many = [secret; 5].join(" ");
    let spaced = "whsec_ no base64";
    for (variables, sentence) in [
        (vec![], "SCALE_CALLBACK_SIGNING_SECRET is not set (nor SCALE_CALLBACK_SIGNING_SECRET_FILE)"),
        (vec![("SCALE_CALLBACK_SIGNING_SECRET", " \n")], "SCALE_CALLBACK_SIGNING_SECRET is blank"),
        (vec![("SCALE_CALLBACK_SIGNING_SECRET", "")], "SCALE_CALLBACK_SIGNING_SECRET is blank"),
        (
            vec![("SCALE_CALLBACK_AUTH_KEY", live_key.as_str())],
            "SCALE_CALLBACK_AUTH_KEY is set without a signing secret: alone it proves nothing about the body",
        ),
        (
            vec![("SCALE_CALLBACK_SIGNING_SECRET", secret), ("SCALE_CALLBACK_AUTH_KEY", test_key.as_str())],
            "SCALE_CALLBACK_AUTH_KEY holds a key of the other mode (live and test keys have separate variables)",
        ),
        (
            vec![("SCALE_CALLBACK_SIGNING_SECRET", secret), ("SCALE_CALLBACK_SIGNING_SECRET_FILE", "/x")],
            "SCALE_CALLBACK_SIGNING_SECRET is set, and SCALE_CALLBACK_SIGNING_SECRET_FILE as well: set one of them",
        ),
        (
            vec![("SCALE_CALLBACK_SIGNING_SECRET_FILE", "/nonexistent/secret")],
            "the file that SCALE_CALLBACK_SIGNING_SECRET_FILE names can't be read",
        ),
        (
            vec![("SCALE_CALLBACK_SIGNING_SECRET", many.as_str())],
            "SCALE_CALLBACK_SIGNING_SECRET holds more than 4 keys",
        ),
        (
            vec![("SCALE_CALLBACK_SIGNING_SECRET", spaced)],
            "SCALE_CALLBACK_SIGNING_SECRET: the signing secret must hold 24 to 64 bytes",
        ),
        (
            vec![("SCALE_CALLBACK_SIGNING_SECRET", secret), ("SCALE_CALLBACK_TEST_SIGNING_SECRET", "")],
            "SCALE_CALLBACK_TEST_SIGNING_SECRET is blank",
        ),
        (
            vec![("SCALE_CALLBACK_TEST_SIGNING_SECRET", secret)],
            "SCALE_CALLBACK_SIGNING_SECRET is not set (nor SCALE_CALLBACK_SIGNING_SECRET_FILE)",
        ),
    ] {
        let error = from(&variables).err().unwrap_or_else(|| panic!("{variables:?} is accepted"));
        assert_eq!(error.to_string(), sentence);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(secret) && !shown.contains(&live_key) && !shown.contains(&test_key), "{shown}");
    }
}

#[test]
fn callbacks_are_ordered_by_the_time_inside_their_id() {
    let clock = FakeClock::new();
    let request = Platform::live().signed(BODY, &clock);
    let verifier = Platform::live().verifier();
    let verified = verifier.verify_at(&request.headers[..], &request.body, clock.now()).unwrap();
    let own = verified.event_time().unwrap();
    assert_eq!(own.as_unix_millis(), 1_764_000_000_000);
    assert!(verified.is_older_than(EventTime::from_unix_millis(1_764_000_000_001)));
    assert!(!verified.is_older_than(own) && !verified.is_older_than(EventTime::from_unix_millis(0)));
    // An event that is too far after its attempt can't be put in order, and neither can one without a time.
    let signer = |id: &str, at: u64| {
        use scale_callback_auth::sign::{AuthHeader, Signer};
        use scale_callback_auth::{Credential, SigningSecret};
        let secret = Platform::live().signing_secret();
        let headers = Signer::new(vec![SigningSecret::parse(secret).unwrap()], AuthHeader::Absent).sign(id, at, BODY);
        let verifier = Verifier::new(Credential::signed("live", Mode::Live, secret).unwrap());
        let pairs = headers.to_pairs(id);
        let verified = verifier.verify_at(&pairs[..], BODY, at).unwrap();
        verified.event_time().map(EventTime::as_unix_millis)
    };
    let id = "cb_01kav9ft00zkek0kfes3qvf608";
    assert_eq!(signer(id, 1_764_000_000 - 300), Some(1_764_000_000_000));
    assert_eq!(signer(id, 1_764_000_000 - 301), None);
    assert_eq!(signer("cb_0000000000zkek0kfes3qvf608", 1_764_000_000), None);
    assert_eq!(signer("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", 1_764_000_000), None);
}
