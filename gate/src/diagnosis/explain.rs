//! Sentences that explain why a captured request does not verify.

use scale_callback_auth::{Verifier, VerifyError, header};

use super::capture::{Capture, is_utf16, wants_signature_and_key};
use super::rewritten::originals;

impl Capture {
    /// Sentences that explain a refusal, the likeliest first.
    #[must_use]
    pub fn explain(&self, verifier: &Verifier, refusal: VerifyError) -> Vec<String> {
        let mut found = Vec::new();
        let time = self.value(header::TIMESTAMP).unwrap_or_default();
        if time.len() == 13 && time.bytes().all(|byte| byte.is_ascii_digit()) {
            found.push("webhook-timestamp has 13 digits: milliseconds; the platform sends seconds".to_owned());
        }
        if matches!(refusal, VerifyError::SignatureMismatch | VerifyError::AuthMismatch) {
            self.explain_body(verifier, &mut found);
            if found.is_empty() {
                found.push(self.explain_keys(verifier, refusal).to_owned());
            }
        }
        found.extend(self.explain_headers(refusal).map(str::to_owned));
        found
    }

    /// What happened to the body between the signature and the capture.
    fn explain_body(&self, verifier: &Verifier, found: &mut Vec<String>) {
        let length = self.value("content-length").and_then(|value| value.parse::<usize>().ok());
        if let Some(length) = length.filter(|length| *length != self.body.len()) {
            found.push(format!(
                "content-length says {length} bytes, and the file has {}: it was cut, or is another body",
                self.body.len()
            ));
        }
        if self.body.is_empty() {
            found.push(
                "the body's file is empty, and every callback has a body: it was read before it was recorded (a stream can be \
                 read once), or only the headers were"
                    .to_owned(),
            );
        }
        if self.body.starts_with(b"\x1f\x8b") {
            found.push(
                "the body is compressed: the platform never compresses one, so something on the way did".to_owned(),
            );
        }
        let verifies = |body: &[u8]| self.verify(verifier, body).is_ok();
        if let Some((_, change)) = originals(&self.body).into_iter().find(|(body, _)| verifies(body)) {
            found.push(format!(
                "the body is not what was signed: {change}. Verify the bytes as they arrived, before any parser or file"
            ));
        } else if is_utf16(&self.body) {
            found.push("the body is UTF-16, and the platform sends UTF-8: a tool on the way wrote it anew".to_owned());
        } else if self.body.windows(3).any(|three| three == "\u{fffd}".as_bytes()) {
            found.push(
                "the body holds U+FFFD, which a decoder writes where it does not understand a byte: the bytes were taken for \
                 another encoding, and cannot be had back"
                    .to_owned(),
            );
        }
    }

    /// What is wrong where no usual change of the body explains it.
    fn explain_keys(&self, verifier: &Verifier, refusal: VerifyError) -> &'static str {
        let has_version_1 = self.value(header::SIGNATURE).is_some_and(|value| value.contains("v1,"));
        match refusal {
            VerifyError::AuthMismatch if verifier.singles().iter().any(wants_signature_and_key) => {
                "the signature is right; scale-callback-auth is not one of your keys"
            }
            VerifyError::SignatureMismatch if !has_version_1 => "webhook-signature holds no entry that begins with v1,",
            _ => {
                "either the secret or key is another one (live and test keys differ; a rotation may be under way), or \
                 something on the way changed the body, the id or the time"
            }
        }
    }

    fn explain_headers(&self, refusal: VerifyError) -> Option<&'static str> {
        match refusal {
            VerifyError::AuthMalformed => Some(
                "your key is of the hmac form (..._hmac_...), and the request holds something other than t=...,v1=...: \
                 either the platform still sends the plain key, or somebody else sent this",
            ),
            VerifyError::SignatureMissing => Some("a proxy on the way may drop headers that it does not know"),
            VerifyError::IdInvalid | VerifyError::IdMissing if self.value("webhook_id").is_some() => {
                Some("the header's name has an underscore: a framework or a proxy renamed it")
            }
            VerifyError::IdMissing if self.value("http_webhook_id").is_some() => Some(
                "the names are those of CGI variables (HTTP_WEBHOOK_ID): write each as it was sent, for example webhook-id",
            ),
            _ => None,
        }
    }
}
