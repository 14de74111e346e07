use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{Credential, Mode, SigningSecret, Verifier, VerifyError};

use super::{Capture, Finding};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn capture(signed: &[u8], kept: &[u8]) -> (Capture, Verifier) {
    let signer = Signer::new(vec![SigningSecret::parse(SECRET).expect("a secret")], AuthHeader::Absent);
    let headers = signer.sign("cb_1", 1_764_000_000, signed).to_pairs("cb_1");
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value, 1)).collect();
    let verifier = Verifier::new(Credential::signed("live", Mode::Live, SECRET).expect("a secret"));
    (Capture { headers, body: kept.to_vec() }, verifier)
}

#[test]
fn the_change_of_a_body_is_named() {
    let signed = br#"{"a":1,"b":[1.50,"x, y: z\" "]}"#;
    for (kept, told) in [
        (&br#"{"a": 1, "b": [1.50, "x, y: z\" "]}"#[..], "rewritten with white space"),
        (&b"{\"a\":1,\"b\":[1.50,\"x, y: z\\\" \"]}\n"[..], "a line end was added"),
        (&b"\xef\xbb\xbf{\"a\":1,\"b\":[1.50,\"x, y: z\\\" \"]}"[..], "a byte order mark was added"),
        (&br#"{"a":2,"b":[]}"#[..], "either the secret or key is another one"),
    ] {
        let (capture, verifier) = capture(signed, kept);
        assert_eq!(capture.verdict(&verifier), Finding::Invalid(VerifyError::SignatureMismatch));
        let explained = capture.explain(&verifier, VerifyError::SignatureMismatch);
        assert!(explained[0].contains(told), "{explained:?}");
    }
    let signed = "{\"task\":{\"task_id\":\"t1\"},\"x\":\"Ü \\\\u00fc 📦 \\n\"}".as_bytes();
    for (kept, told) in [
        (
            &br#"{"task": {"task_id": "t1"}, "x": "\u00dc \\u00fc \ud83d\udce6 \n"}"#[..],
            "that were not escaped now are",
        ),
        (&br#"{"task":{"task_id":"t1"},"x":"\u00dc \\u00fc \ud83d\udce6 \n"}"#[..], "that were not escaped now are"),
    ] {
        let (capture, verifier) = capture(signed, kept);
        let explained = capture.explain(&verifier, VerifyError::SignatureMismatch);
        assert!(explained[0].contains(told), "{explained:?}");
    }
    let (mut cut, verifier) = capture(signed, &signed[..9]);
    cut.headers.push(("content-length".to_owned(), signed.len().to_string(), 9));
    let explained = cut.explain(&verifier, VerifyError::SignatureMismatch);
    assert!(explained[0].contains("and the file has 9"), "{explained:?}");
    let (good, verifier) = capture(signed, signed);
    assert!(matches!(good.verdict(&verifier), Finding::Valid { mode: "live", task: None, .. }));
    let (pythons, verifier) = capture(br#"{"a": 1, "b": 2}"#, br#"{"a":1,"b":2}"#);
    assert!(pythons.explain(&verifier, VerifyError::SignatureMismatch)[0].contains("rewritten without white space"));
}

#[test]
fn captures_are_read_and_a_mistake_is_named_with_its_line() {
    let read = Capture::headers("POST /x HTTP/1.1\r\nHost: a\r\nWebhook-Id: cb_1\r\n\r\n").expect("it is good");
    assert_eq!(read[1], ("webhook-id".to_owned(), "cb_1".to_owned(), 3));
    assert_eq!(Capture::headers("> webhook-id: x\n> a:b").expect("curl's form").len(), 2);
    for (text, told) in [
        ("a: b\n c", "line 2 continues"),
        ("nonsense", "line 1 is not a header"),
        ("webhook-id: a\nx: y\nWebhook-ID: b", "line 3: webhook-id appears a second time (first on line 1)"),
        ("", "no header"),
    ] {
        let error = Capture::headers(text).expect_err("it is not");
        assert!(error.to_string().contains(told), "{error}");
    }
}
