//! What is kept of a receiver's words: the beginning of its answer's body, or the text of a failure, in which it may have
//! a say too (its certificate's names, or the reason that it gives for ending a connection). The text is cut, and our
//! secrets are removed from it, since a receiver may have echoed them.

use base64::engine::{Engine as _, general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderMap;

/// How many bytes of a text are kept.
pub(crate) const KEPT: usize = 1024;
/// How many more bytes are read until secrets are removed. So a secret at the end of the kept part is recognised.
pub(crate) const MARGIN: usize = 512;
/// The shortest part of a header's value that counts as a secret of its own, and the shortest beginning of a secret that
/// is recognised where the text was cut off.
const SHORTEST: usize = 12;
/// The shortest end of a key, after its prefix, that counts as a secret of its own.
const SHORTEST_END: usize = 16;
/// A password in a URL may be shorter. A text that contains such a short one by chance is no great loss.
const SHORTEST_PASSWORD: usize = 6;

/// The values that must not be kept: those of all headers that are marked as sensitive, and their parts.
struct Secrets(Vec<Vec<u8>>);

/// The kept part of `text`, without the secrets of the request's headers.
pub(crate) fn kept(text: &[u8], headers: &HeaderMap) -> Bytes {
    if text.is_empty() { Bytes::new() } else { Secrets::of(headers).remove_from(text) }
}

impl Secrets {
    fn of(headers: &HeaderMap) -> Self {
        let mut secrets = Vec::new();
        for value in headers.values().filter(|value| value.is_sensitive()) {
            let value = value.as_bytes();
            secrets.push(value.to_vec());
            // A receiver may echo a key without its prefix: `live_auth_`.
            let end = value.rsplit(|byte| *byte == b'_').next().unwrap_or_default();
            secrets.extend((end.len() >= SHORTEST_END).then(|| end.to_vec()));
            // A signature is one of a list, each with its version. A receiver may echo only the part that it compared.
            let parts = value.split(|byte| matches!(byte, b' ' | b',')).map(|part| {
                let unversioned = part.strip_prefix(b"v1=");
                unversioned.unwrap_or(part)
            });
            secrets.extend(parts.filter(|part| part.len() >= SHORTEST).map(<[u8]>::to_vec));
            secrets.extend(user_and_password(value));
        }
        // The longest first, so that no part of a removed secret remains.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self(secrets)
    }

    fn remove_from(&self, text: &[u8]) -> Bytes {
        let text = &text[..text.len().min(KEPT + MARGIN)];
        let mut kept = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() && kept.len() < KEPT {
            match self.0.iter().find_map(|secret| found(secret, &text[at..])) {
                Some(length) => {
                    kept.extend_from_slice(b"[redacted]");
                    at += length;
                }
                None => {
                    kept.push(text[at]);
                    at += 1;
                }
            }
        }
        kept.truncate(KEPT);
        Bytes::from(kept)
    }
}

/// How many bytes of `rest` are the secret, in upper or lower case. A secret that our limit cut off counts too, if enough of it
/// is there.
fn found(secret: &[u8], rest: &[u8]) -> Option<usize> {
    let length = rest.len().min(secret.len());
    let is_long_enough = length == secret.len() || length >= SHORTEST;
    (is_long_enough && rest[..length].eq_ignore_ascii_case(&secret[..length])).then_some(length)
}

/// What a receiver sees after it has decoded `Basic ...`.
fn user_and_password(value: &[u8]) -> Vec<Vec<u8>> {
    let Some(decoded) = value.strip_prefix(b"Basic ").and_then(|encoded| STANDARD.decode(encoded).ok()) else {
        return Vec::new();
    };
    let password = decoded.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default().to_vec();
    [decoded, password].into_iter().filter(|secret| secret.len() >= SHORTEST_PASSWORD).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn sensitive(value: &'static str) -> HeaderValue {
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(true);
        value
    }

    const KEY: &str = "live_auth_0123456789abcdef0123456789abcdef";

    fn kept(text: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("scale-callback-auth", sensitive(KEY));
        headers.insert("webhook-signature", sensitive("v1,QUFBQUFBQUFBQUFB= v1,QkJCQkJCQkJCQkJC="));
        // user:secretpassword
        headers.insert("authorization", sensitive("Basic dXNlcjpzZWNyZXRwYXNzd29yZA=="));
        headers.insert("webhook-id", HeaderValue::from_static("cb_1234567890123456"));
        String::from_utf8(Secrets::of(&headers).remove_from(text.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn echoed_secrets_are_not_kept() {
        for (text, expected) in [
            (format!("auth {KEY}; again {KEY}"), "auth [redacted]; again [redacted]"),
            (format!("{KEY}{KEY}"), "[redacted][redacted]"),
            (format!("cut {}", &KEY[..20]), "cut [redacted]"),
            (format!("without its prefix {}", &KEY[10..]), "without its prefix [redacted]"),
            (format!("half a prefix {}", &KEY[4..]), "half a prefix _auth_[redacted]"),
            (KEY.to_uppercase(), "[redacted]"),
            ("live_auth_ is a prefix".to_owned(), "live_auth_ is a prefix"),
            ("id cb_1234567890123456".to_owned(), "id cb_1234567890123456"),
            ("expected QkJCQkJCQkJCQkJC=, got v1,QUFBQUFBQUFBQUFB=".to_owned(), "expected [redacted], got [redacted]"),
            ("all: v1,QUFBQUFBQUFBQUFB= v1,QkJCQkJCQkJCQkJC=".to_owned(), "all: [redacted]"),
            ("dXNlcjpzZWNyZXRwYXNzd29yZA== is wrong".to_owned(), "[redacted] is wrong"),
            (
                "no user user:secretpassword; password secretpassword".to_owned(),
                "no user [redacted]; password [redacted]",
            ),
        ] {
            assert_eq!(kept(&text), expected);
        }
    }

    #[test]
    fn the_parts_of_the_hmac_form_are_secrets_too() {
        let mut headers = HeaderMap::new();
        headers
            .insert("scale-callback-auth", sensitive("t=1764000000,v1=00112233445566778899,v1=99887766554433221100"));
        let secrets = Secrets::of(&headers);
        assert_eq!(secrets.remove_from(b"got 99887766554433221100 at 1764000000"), "got [redacted] at 1764000000");
    }

    #[test]
    fn a_long_text_is_cut_and_no_part_of_a_secret_stays_at_its_end() {
        assert_eq!(kept(&"x".repeat(70_000)).len(), KEPT);
        for before in KEPT - 60..=KEPT {
            let text = format!("{}{KEY}{}", "x".repeat(before), "y".repeat(2_000));
            let kept = kept(&text);
            assert!(kept.len() <= KEPT && !kept.contains("live"), "{before}: {}", &kept[KEPT - 80..]);
        }
    }
}
