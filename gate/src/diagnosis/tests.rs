use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{Credential, Mode, SigningSecret, Verifier, VerifyError};

use super::{Capture, CaptureError, Finding, text_of};

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

#[test]
fn what_tools_put_around_a_body_is_named() {
    use base64::engine::{Engine as _, general_purpose::STANDARD};
    let signed = "{\"task\":{\"task_id\":\"t1\",\"url\":\"https://a/b\"},\"task_id\":\"t1\",\"x\":\"\u{fc}\"}";
    let base64 = STANDARD.encode(signed);
    let in_lines = format!("{}\n{}\n", &base64[..40], &base64[40..]);
    let in_string = serde_json::Value::from(signed).to_string();
    let event = serde_json::json!({ "isBase64Encoded": true, "body": base64 }).to_string();
    let plain_event = serde_json::json!({ "body": signed }).to_string();
    let utf16: Vec<u8> = std::iter::once(0xfeff).chain(signed.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let latin: String = signed.bytes().map(char::from).collect();
    let chunked = format!("5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &signed[..5], signed.len() - 5, &signed[5..]);
    let form: String = signed.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for (kept, told) in [
        (base64.as_bytes(), "it is base64"),
        (in_lines.as_bytes(), "it is base64"),
        (in_string.as_bytes(), "inside a JSON string"),
        (event.as_bytes(), "the event of a function"),
        (plain_event.as_bytes(), "the event of a function"),
        (signed.replace('/', "\\/").as_bytes(), "as PHP's json_encode does"),
        (signed.replace('/', "\\/").replace('\u{fc}', "\\u00fc").as_bytes(), "as PHP's json_encode does"),
        (&utf16[..], "saved as UTF-16"),
        (latin.as_bytes(), "read as Latin-1"),
        (chunked.as_bytes(), "the sizes of chunked transfer"),
        (format!("payload={form}").as_bytes(), "as a form"),
        (format!("{form}=").as_bytes(), "as a form"),
        (signed.replace('\u{fc}', "\u{fffd}").as_bytes(), "holds U+FFFD"),
        (&b""[..], "the body's file is empty"),
    ] {
        let (capture, verifier) = capture(signed.as_bytes(), kept);
        assert_eq!(capture.verdict(&verifier), Finding::Invalid(VerifyError::SignatureMismatch));
        let explained = capture.explain(&verifier, VerifyError::SignatureMismatch);
        assert!(explained[0].contains(told), "{told}: {explained:?}");
    }
    // The other way round: slashes were escaped when it was signed.
    let php = signed.replace('/', "\\/");
    let (capture, verifier) = capture(php.as_bytes(), signed.as_bytes());
    let explained = capture.explain(&verifier, VerifyError::SignatureMismatch);
    assert!(explained[0].contains("no longer are"), "{explained:?}");
}

#[test]
fn files_of_headers_that_tools_wrote_differently_are_read_or_named() {
    let lines = "webhook-id: cb_1\r\nwebhook-timestamp: 1\r\n";
    let with_mark = [b"\xef\xbb\xbf", lines.as_bytes()].concat();
    let (text, had_mark) = text_of(&with_mark).expect("it is UTF-8");
    assert!(had_mark && text == lines && !text_of(lines.as_bytes()).expect("it is UTF-8").1);
    assert_eq!(Capture::headers(&text).expect("it is good")[0].0, "webhook-id");
    for big in [false, true] {
        for mark in [false, true] {
            let units = mark.then_some(0xfeff_u16).into_iter().chain(lines.encode_utf16());
            let utf16: Vec<u8> =
                units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect();
            assert_eq!(text_of(&utf16), Err(CaptureError::Utf16), "{big} {mark}");
        }
    }
    let curl = "* Connected to a (127.0.0.1) port 80\n> POST /x HTTP/1.1\n> webhook-id: cb_1\n>\n< HTTP/1.1 204 No Content\n< date: x\n";
    assert_eq!(Capture::headers(curl).expect("curl's form").len(), 1);
    assert_eq!(Capture::headers(":method: POST\nwebhook-id: x").expect("HTTP/2").len(), 1);
    assert_eq!(Capture::headers("{\"webhook-id\": \"x\"}"), Err(CaptureError::Json));
    assert_eq!(Capture::headers("a: b\n\n{\"task\": 1}"), Err(CaptureError::NotAName { line: 3 }));
    let cgi = Capture { headers: Capture::headers("HTTP_WEBHOOK_ID: x").expect("a header"), body: Vec::new() };
    let verifier = Verifier::new(Credential::signed("live", Mode::Live, SECRET).expect("a secret"));
    let explained = cgi.explain(&verifier, VerifyError::IdMissing);
    assert!(explained[0].contains("CGI variables"), "{explained:?}");
}
