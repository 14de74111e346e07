//! The fuzz targets. A target runs one input, compares the verdicts of the SDK and of a second verifier, and returns the
//! verdict.

#[path = "json.rs"]
mod json;
#[path = "oracle.rs"]
mod oracle;
#[path = "source.rs"]
mod source;

use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{
    CallbackAuthKey, Credential, HmacKey, KeyError, Mode, SigningSecret, Verified, Verifier, VerifyError,
};

use oracle::{Holds, Receiver, Request, base64, judge};
use source::{Source, change};

/// Runs one input and returns the verdict. It panics if the two verdicts differ.
pub type Target = fn(&[u8]) -> String;

pub const TARGETS: [(&str, Target); 3] = [("verify", verify), ("body", body), ("keys", keys)];

const NOW: u64 = 1_764_000_000;
const NAMES: [&str; 4] = ["webhook-id", "webhook-timestamp", "webhook-signature", "scale-callback-auth"];

fn secret(n: u8) -> Vec<u8> {
    (0..24 + n * 20).map(|place| place ^ n.wrapping_mul(0x35)).collect()
}

fn auth_key(n: u8) -> String {
    format!("{}_auth_{}", if n == 2 { "test" } else { "live" }, format!("{n:x}123456789abcdef").repeat(2))
}

fn hmac_key(n: u8) -> String {
    format!("{}_hmac_{}", if n == 2 { "test" } else { "live" }, format!("{n:x}123456789abcdef").repeat(4))
}

/// What a receiver holds, for both verifiers. Key 2 is the test key.
fn held(source: &mut Source<'_>) -> (Credential, (Holds, bool)) {
    let n = source.pick(&[0_u8, 0, 0, 1, 2]);
    let mode = if n == 2 { Mode::Test } else { Mode::Live };
    let text = format!("whsec_{}", base64(&secret(n)));
    let (made, holds) = match source.below(4) {
        0 => (Credential::signed("a", mode, &text), Holds::Signed(secret(n))),
        1 => (Credential::signed_and_keyed("a", &text, &auth_key(n)), Holds::Keyed(secret(n), auth_key(n))),
        2 => (Credential::hmac_header("a", &hmac_key(n)), Holds::Hmac(hmac_key(n))),
        _ => (Credential::static_key_authenticates_no_body("a", &auth_key(n)), Holds::Static(auth_key(n))),
    };
    (made.unwrap(), (holds, n == 2))
}

/// Signs a request, changes it, and asks both verifiers.
pub fn verify(data: &[u8]) -> String {
    let mut source = Source::new(data);
    let (first, holds) = held(&mut source);
    let (mut verifier, mut credentials) = (Verifier::new(first), vec![holds]);
    for _ in 0..source.pick(&[0, 0, 1, 2]) {
        let (another, holds) = held(&mut source);
        verifier = verifier.or_credential(another);
        credentials.push(holds);
    }
    let live_only = source.one_in(4);
    if live_only {
        verifier = verifier.require_live();
    }
    let receiver = Receiver { credentials, live_only };

    let (mut headers, mut body) = signed_request(&mut source);
    for _ in 0..source.pick(&[0, 1, 1, 2, 3]) {
        change_request(&mut headers, &mut body, &mut source);
    }
    let now = NOW.wrapping_add_signed(source.pick(&[0, 0, 0, 1, -1, 300, -300, 100_000]));
    let own = verifier.verify_at(&headers[..], &body, now);
    let other = judge(&receiver, &Request { headers: &headers, body: &body }, now);
    let early = verifier.check_headers_at(&headers[..], now);
    let incremental = incrementally(&verifier, &headers, &body, now);
    let summary =
        |verdict: &Result<Verified<'_>, VerifyError>| verdict.map(|verified| (verified.mode(), verified.timestamp()));
    assert_eq!(summary(&own), summary(&incremental), "the incremental verification has another verdict");
    match (&own, other) {
        (Ok(verified), Ok(_)) => {
            assert_eq!(verified.body(), &body[..]);
            assert!(early.is_ok(), "the headers alone were refused: {early:?}");
            "accepted".to_owned()
        }
        (Err(error), Err(why)) if error.code() == why => why.to_owned(),
        _ => panic!("the SDK says {own:?}, the oracle {other:?}: {headers:?} at {now}"),
    }
}

type RequestHeaders = Vec<(String, Vec<u8>)>;

fn signed_request(source: &mut Source<'_>) -> (RequestHeaders, Vec<u8>) {
    let n = source.pick(&[0_u8, 0, 0, 0, 1, 2]);
    let secrets: Vec<u8> = if source.one_in(4) { vec![n, 1] } else { vec![n] };
    let secrets = secrets.iter().map(|n| SigningSecret::parse(&format!("whsec_{}", base64(&secret(*n)))).unwrap());
    let auth = match source.below(4) {
        0 => AuthHeader::Key(CallbackAuthKey::parse(&auth_key(n)).unwrap()),
        1 => AuthHeader::Hmac(HmacKey::parse(&hmac_key(n)).unwrap(), None),
        2 => AuthHeader::Hmac(HmacKey::parse(&hmac_key(1)).unwrap(), Some(HmacKey::parse(&hmac_key(n)).unwrap())),
        _ => AuthHeader::Absent,
    };
    let id = source.pick(&["cb_01kav9ft00zkek0kfes3qvf608", "x", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"]);
    let length = source.pick(&[0, 1, 20, 63, 64, 65, 200]);
    let body = source.bytes(length);
    let time = NOW.wrapping_add_signed(source.pick(&[0, 0, 0, -300, -301, 300, 301]));
    let signed = Signer::new(secrets.collect(), auth).sign(id, time, &body).to_pairs(id);
    (signed.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(), body)
}

fn change_request(headers: &mut RequestHeaders, body: &mut Vec<u8>, source: &mut Source<'_>) {
    let at = source.below(headers.len().max(1));
    match source.below(8) {
        0 => change(body, source),
        1 | 2 if at < headers.len() => change(&mut headers[at].1, source),
        3 if at < headers.len() => drop(headers.remove(at)),
        4 if at < headers.len() => {
            let copy = headers[at].clone();
            headers.push(copy);
        }
        5 if at < headers.len() => headers[at].0 = headers[at].0.to_uppercase(),
        6 => {
            let length = source.pick(&[0, 1, 64, 65, 257, 4_097]);
            headers.push((source.pick(&NAMES).to_owned(), source.bytes(length)));
        }
        _ if at < headers.len() => {
            let (entries, glue) = (source.below(20), source.pick(&[" ", "  ", ","]));
            let value = String::from_utf8_lossy(&headers[at].1).into_owned();
            headers[at].1 = vec![value; entries].join(glue).into_bytes();
        }
        _ => {}
    }
}

fn incrementally<'b>(
    verifier: &Verifier,
    headers: &[(String, Vec<u8>)],
    body: &'b [u8],
    now: u64,
) -> Result<Verified<'b>, VerifyError> {
    let mut verification = verifier.begin_incremental_at(headers, body, now)?;
    loop {
        if let Some(verdict) = verification.step(17) {
            return verdict;
        }
    }
}

/// Changes a callback's body, and asks both readers what it says.
pub fn body(data: &[u8]) -> String {
    use scale_callback_auth::testing::{FakeClock, Platform};
    let mut source = Source::new(data);
    let mut body = source
        .pick(&[
            &br#"{"task":{"task_id":"t1","type":"x","status":"completed","is_test":false},"response":{"a":[1,-2.5e3,"\u00e9\ud83d\udce6"]},"task_id":"t1"}"#[..],
            br#"{ "task_id" : "\u0074\n" , "task" : { } , "x" : [ [ ] , { "y" : null } , true , false ] }"#,
            br#"{"task_id":"a","task":{},"task_id":"b","task":{"type":1},"response":1e400}"#,
            b"{\"task_id\":\"\xc3\xa9\xf0\x9f\x93\xa6\",\"task\":{\"\\ud800\":1}}",
            b"[]",
            b"",
        ])
        .to_vec();
    for _ in 0..source.below(6) {
        change(&mut body, &mut source);
    }
    let (platform, clock) = (Platform::live(), FakeClock::new());
    let request = platform.signed(&body, &clock);
    let verifier = platform.verifier();
    let verified = verifier.verify_at(&request.headers[..], &request.body, clock.now()).expect("it is signed");
    let own = verified.callback().map(|callback| callback.task_id().to_owned()).map_err(|error| error.code());
    let other = match json::read(&body) {
        None => Err("not_json"),
        Some(found) => match (found.task_id, found.task_is_object) {
            (Some(Some(id)), Some(true)) => Ok(id),
            _ => Err("not_a_callback"),
        },
    };
    assert_eq!(own, other, "{:?}", String::from_utf8_lossy(&body));
    own.map_or_else(str::to_owned, |_| "a callback".to_owned())
}

/// Changes a key, and asks both parsers whether it is still a key.
pub fn keys(data: &[u8]) -> String {
    let mut source = Source::new(data);
    let n = source.pick(&[0, 1, 2]);
    let mut text = source
        .pick(&[0_u8, 1, 2])
        .checked_sub(1)
        .map_or_else(
            || format!("whsec_{}", base64(&secret(n))),
            |kind| if kind == 0 { auth_key(n) } else { hmac_key(n) },
        )
        .into_bytes();
    for _ in 0..source.below(3) {
        change(&mut text, &mut source);
    }
    let Ok(text) = String::from_utf8(text) else { return "no text".to_owned() };
    let lower_hex = |rest: &str, count: usize| {
        rest.len() == count && rest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let prefixed = |live: &str, test: &str| text.strip_prefix(live).or_else(|| text.strip_prefix(test));
    let auth = prefixed("live_auth_", "test_auth_").is_some_and(|rest| lower_hex(rest, 32));
    let hmac = prefixed("live_hmac_", "test_hmac_").is_some_and(|rest| lower_hex(rest, 64));
    let signing = text.strip_prefix("whsec_").is_some_and(canonical_secret);
    assert_eq!(CallbackAuthKey::parse(&text).is_ok(), auth, "{text:?}");
    assert_eq!(HmacKey::parse(&text).is_ok(), hmac, "{text:?}");
    let parsed = SigningSecret::parse(&text);
    assert_eq!(parsed.is_ok(), signing, "{text:?}");
    let told = parsed.err().map_or("signing", KeyError::code);
    if auth || hmac { "another kind".to_owned() } else { told.to_owned() }
}

/// Whether the text is the canonical base64 of 24 to 64 bytes.
fn canonical_secret(text: &str) -> bool {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bare = text.trim_end_matches('=');
    let mut bits = 0_u32;
    let (mut held, mut bytes) = (0, Vec::new());
    for byte in bare.bytes() {
        let Some(value) = digit(byte) else { return false };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    (24..=64).contains(&bytes.len()) && base64(&bytes) == text
}
