//! Why a captured request does not verify, told to the customer who holds its secret. For files on their own disk only:
//! what is said here would help a forger.

use scale_callback_auth::{Verifier, VerifyError};

/// A captured request.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// Names and values, with the line that each stands on.
    pub headers: Vec<(String, String, usize)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What stands in a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is from the platform.
    Valid {
        /// `webhook-id`.
        id: String,
        /// The credential's mode.
        mode: &'static str,
        /// The task, where the body is a callback.
        task: Option<String>,
    },
    /// It is not, for this reason.
    Invalid(VerifyError),
}

impl Capture {
    /// Reads headers as they are captured: `Name: value` lines; a request line, `> ` before each line and an empty line
    /// at the end may be there.
    ///
    /// # Errors
    /// One sentence with the line.
    pub fn headers(text: &str) -> Result<Vec<(String, String, usize)>, String> {
        let mut headers: Vec<(String, String, usize)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.strip_prefix("> ").unwrap_or(line).trim_end_matches('\r');
            if line.is_empty() {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                return Err(format!(
                    "line {number} continues the one before it: a folded header, which no receiver reads"
                ));
            }
            let versions = [" HTTP/1.1", " HTTP/1.0", " HTTP/2", " HTTP/2.0"];
            let is_request_line = headers.is_empty() && versions.iter().any(|version| line.ends_with(version));
            if is_request_line {
                continue;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| format!("line {number} is no header: there is no colon"))?;
            let once = ["webhook-id", "webhook-timestamp", "scale-callback-auth"];
            let name = name.trim().to_lowercase();
            let earlier = headers.iter().find(|(known, ..)| *known == name && once.contains(&name.as_str()));
            if let Some((.., first)) = earlier {
                return Err(format!(
                    "line {number}: {name} stands a second time (first on line {first}); it is sent once"
                ));
            }
            headers.push((name, value.trim().to_owned(), number));
        }
        if headers.is_empty() {
            return Err("there is no header in it".to_owned());
        }
        Ok(headers)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, ..)| known == name).map(|(_, value, _)| value.as_str())
    }

    /// Its own time, in unix seconds.
    #[must_use]
    pub fn time(&self) -> Option<u64> {
        let text = self.value(scale_callback_auth::header::TIMESTAMP)?;
        let plain =
            (1..=12).contains(&text.len()) && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| plain)
    }

    /// The verdict as if it had come in at its own time. Of several credentials the one that it came furthest with tells
    /// the reason: where its signature was right, the key is what is wrong.
    #[must_use]
    pub fn verdict(&self, verifier: &Verifier) -> Finding {
        let error = match self.verify(verifier, &self.body) {
            Ok(finding) => return finding,
            Err(error) => error,
        };
        let past_its_signature = |single: &Verifier| {
            let refusal = self.verify(single, &self.body).err();
            refusal.filter(|why| keyed(single) && matches!(why, VerifyError::AuthMismatch | VerifyError::AuthMissing))
        };
        Finding::Invalid(verifier.singles().iter().find_map(past_its_signature).unwrap_or(error))
    }

    fn verify(&self, verifier: &Verifier, body: &[u8]) -> Result<Finding, VerifyError> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value, _)| (&**name, &**value)).collect();
        let verified = verifier.verify_at(&headers[..], body, self.time().unwrap_or_default())?;
        Ok(Finding::Valid {
            id: verified.id().to_owned(),
            mode: verified.mode().name(),
            task: verified.callback().ok().map(|callback| callback.task_id().to_owned()),
        })
    }

    /// Sentences that explain a refusal, the likeliest first.
    #[must_use]
    pub fn explain(&self, verifier: &Verifier, refusal: VerifyError) -> Vec<String> {
        let mut found = Vec::new();
        let time = self.value(scale_callback_auth::header::TIMESTAMP).unwrap_or_default();
        if time.len() == 13 && time.bytes().all(|byte| byte.is_ascii_digit()) {
            found.push("webhook-timestamp has 13 digits: milliseconds; the platform sends seconds".to_owned());
        }
        let may_be_the_body = matches!(refusal, VerifyError::SignatureMismatch | VerifyError::AuthMismatch);
        if may_be_the_body {
            let length = self.value("content-length").and_then(|value| value.parse::<usize>().ok());
            if let Some(length) = length.filter(|length| *length != self.body.len()) {
                found.push(format!(
                    "content-length says {length} bytes, and the file has {}: it was cut, or is another body",
                    self.body.len()
                ));
            }
            if self.body.starts_with(b"\x1f\x8b") {
                found.push("the body is compressed: the platform sends none so, something on the way did".to_owned());
            }
            let fits = |body: &[u8]| self.verify(verifier, body).is_ok();
            let changed = variants(&self.body).into_iter().find(|(body, _)| fits(body));
            if let Some((_, what)) = changed {
                found.push(format!(
                    "the body is not what was signed: {what}. Verify the bytes as they came, before any parser or file"
                ));
            }
        }
        if found.is_empty() && may_be_the_body {
            let versioned =
                self.value(scale_callback_auth::header::SIGNATURE).is_some_and(|value| value.contains("v1,"));
            found.push(match refusal {
                VerifyError::AuthMismatch if verifier.singles().iter().any(keyed) => {
                    "the signature is right; scale-callback-auth is not one of your keys".to_owned()
                }
                VerifyError::SignatureMismatch if !versioned => {
                    "webhook-signature holds no entry that begins with v1,".to_owned()
                }
                _ => "either the secret or key is another one (live and test differ; a rotation may be under way), or the \
                      body, the id or the time was changed on the way"
                    .to_owned(),
            });
        }
        match refusal {
            VerifyError::AuthMalformed => {
                found.push(
                    "your key is of the hmac form (..._hmac_...), and what came is not t=...,v1=...: the platform still \
                     sends the plain key, or somebody else sent this"
                        .to_owned(),
                );
            }
            VerifyError::SignatureMissing => {
                found.push("a proxy on the way may drop headers that it does not know".to_owned());
            }
            VerifyError::IdInvalid | VerifyError::IdMissing if self.value("webhook_id").is_some() => {
                found.push("the header's name has an underscore: a framework or proxy renamed it".to_owned());
            }
            _ => {}
        }
        found
    }
}

/// Whether it asks for a signature and a key.
fn keyed(single: &Verifier) -> bool {
    single.forms().all(|form| form == "signed_and_keyed")
}

/// Bodies that were signed, if this one was changed in a usual way.
fn variants(body: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let mut found = Vec::new();
    if let Some(rest) = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n")) {
        found.push((rest.to_vec(), "it has a line end more"));
    }
    if let Some(rest) = body.strip_prefix(b"\xef\xbb\xbf") {
        found.push((rest.to_vec(), "it has a byte order mark more"));
    }
    found.push(([body, b"\n"].concat(), "it lost its line end"));
    let text = String::from_utf8_lossy(body);
    if text.contains("\r\n") {
        found.push((text.replace("\r\n", "\n").into_bytes(), "its line ends were changed"));
    }
    if text.contains('\n') {
        found.push((text.replace('\n', "\r\n").into_bytes(), "its line ends were changed"));
    }
    if serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok() {
        for (body, how) in [
            (body.to_vec(), [SPACED, UNSPACED]),
            // What Python writes unless it is told otherwise, and what becomes of it.
            (unescaped(&text).into_bytes(), [ESCAPED; 2]),
            (escaped(&text).into_bytes(), ["its JSON was written anew: characters that were escaped no longer are"; 2]),
        ] {
            found.push((spaced(&body, b"", b""), how[0]));
            found.push((spaced(&body, b" ", b" "), how[1]));
        }
    }
    found
}

const SPACED: &str = "its JSON was written anew, with white space";
const UNSPACED: &str = "its JSON was written anew, without white space";
const ESCAPED: &str = "its JSON was written anew: characters were escaped that were not (\\u...)";

/// JSON with every character outside of ASCII escaped, as UTF-16.
fn escaped(json: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// JSON with every escaped character outside of ASCII written out.
fn unescaped(json: &str) -> String {
    let unit = |text: &str| {
        let digits =
            text.strip_prefix("\\u")?.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u16::from_str_radix(digits, 16).ok().filter(|unit| *unit > 0x7f)
    };
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(next) = rest.chars().next() {
        let units = [unit(rest), rest.get(6..).and_then(unit)];
        let one = units[0].and_then(|unit| char::from_u32(u32::from(unit)));
        let two = units[0].zip(units[1]).and_then(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
        let (c, length) = match (one, two) {
            (Some(c), _) => (c, 6),
            (None, Some(c)) => (c, 12),
            // An escaped backslash takes its neighbour along.
            (None, None) if next == '\\' && rest.len() > 1 => {
                let pair = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..pair]);
                rest = &rest[pair..];
                continue;
            }
            (None, None) => (next, next.len_utf8()),
        };
        out.push(c);
        rest = &rest[length..];
    }
    out
}

/// JSON without white space but what is given behind `:` and `,`.
fn spaced(json: &[u8], colon: &[u8], comma: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if inside => {
                inside = *byte != b'"' || escaped;
                escaped = *byte == b'\\' && !escaped;
                out.push(*byte);
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                inside = *byte == b'"';
                out.push(*byte);
                match byte {
                    b':' => out.extend_from_slice(colon),
                    b',' => out.extend_from_slice(comma),
                    _ => {}
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use scale_callback_auth::sign::{AuthHeader, Signer};
    use scale_callback_auth::{Credential, Mode, SigningSecret};

    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn capture(signed: &[u8], kept: &[u8]) -> (Capture, Verifier) {
        let signer = Signer::new(vec![SigningSecret::parse(SECRET).expect("a secret")], AuthHeader::Absent);
        let headers = signer.sign("cb_1", 1_764_000_000, signed).to_pairs("cb_1");
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value, 1)).collect();
        let verifier = Verifier::new(Credential::signed("live", Mode::Live, SECRET).expect("a secret"));
        (Capture { headers, body: kept.to_vec() }, verifier)
    }

    #[test]
    fn what_happened_to_a_body_is_told() {
        let signed = br#"{"a":1,"b":[1.50,"x, y: z\" "]}"#;
        for (kept, told) in [
            (&br#"{"a": 1, "b": [1.50, "x, y: z\" "]}"#[..], "with white space"),
            (&b"{\"a\":1,\"b\":[1.50,\"x, y: z\\\" \"]}\n"[..], "a line end more"),
            (&b"\xef\xbb\xbf{\"a\":1,\"b\":[1.50,\"x, y: z\\\" \"]}"[..], "byte order mark"),
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
                "were escaped that were not",
            ),
            (&br#"{"task":{"task_id":"t1"},"x":"\u00dc \\u00fc \ud83d\udce6 \n"}"#[..], "were escaped that were not"),
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
        assert!(pythons.explain(&verifier, VerifyError::SignatureMismatch)[0].contains("without white space"));
    }

    #[test]
    fn captures_are_read_and_what_is_wrong_is_told_with_its_line() {
        let read = Capture::headers("POST /x HTTP/1.1\r\nHost: a\r\nWebhook-Id: cb_1\r\n\r\n").expect("it is good");
        assert_eq!(read[1], ("webhook-id".to_owned(), "cb_1".to_owned(), 3));
        assert_eq!(Capture::headers("> webhook-id: x\n> a:b").expect("curl's form").len(), 2);
        for (text, told) in [
            ("a: b\n c", "line 2 continues"),
            ("nonsense", "line 1 is no header"),
            ("webhook-id: a\nx: y\nWebhook-ID: b", "line 3: webhook-id stands a second time (first on line 1)"),
            ("", "no header"),
        ] {
            let error = Capture::headers(text).expect_err("it is not");
            assert!(error.contains(told), "{error}");
        }
    }
}
