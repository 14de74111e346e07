//! A callback URL, parsed once. Every decision uses the parsed host, and never the text.

use std::net::IpAddr;
use std::sync::Arc;

use base64::engine::{Engine as _, general_purpose::STANDARD};
use secrecy::SecretString;
use url::{Host, Url};

use crate::model::endpoint::Origin;

/// The longest URL that is accepted.
pub const MAX_URL_BYTES: usize = 4_096;

/// Ports that the WHATWG fetch standard blocks ("bad ports"), as of 2026.
const BAD_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// Where a callback goes.
#[derive(Debug, Clone)]
pub struct Target {
    pub origin: Origin,
    pub host: TargetHost,
    /// Path and query: a secret, as customers put tokens there. Never logged.
    pub path: SecretString,
    /// `Basic ...` from a user and password in the URL.
    pub authorization: Option<SecretString>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHost {
    /// Normalised, without a final dot.
    Name(Arc<str>),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    #[error("it is not a URL; a callback URL begins with https:// or http:// and names a host")]
    NotAUrl,
    #[error("it is an e-mail address; callbacks are sent to https:// and http:// URLs only")]
    EmailAddress,
    #[error("only https:// and http:// can be called back")]
    Scheme,
    #[error("the URL's port is blocked")]
    BadPort,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlError`]: one sentence that does not quote the URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        if is_email_address(text) {
            return Err(UrlError::EmailAddress);
        }
        let url = Url::parse(text).map_err(|_| UrlError::NotAUrl)?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::Scheme),
        };
        let (host, host_text) = match url.host().ok_or(UrlError::NotAUrl)? {
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                if !is_host_name(name) {
                    return Err(UrlError::NotAUrl);
                }
                (TargetHost::Name(name.into()), name.to_owned())
            }
            Host::Ipv4(ip) => (TargetHost::Address(ip.into()), ip.to_string()),
            Host::Ipv6(ip) => (TargetHost::Address(ip.into()), format!("[{ip}]")),
        };
        let port = url.port_or_known_default().ok_or(UrlError::NotAUrl)?;
        if BAD_PORTS.contains(&port) {
            return Err(UrlError::BadPort);
        }
        let mut path = url.path().to_owned();
        if let Some(query) = url.query() {
            path.push('?');
            path.push_str(query);
        }
        let origin = Origin { https, host: host_text.into(), port };
        Ok(Self { origin, host, path: path.into(), authorization: basic(&url) })
    }
}

/// Whether a text can only be meant as an e-mail address, with or without `mailto:`.
fn is_email_address(text: &str) -> bool {
    let text = text.trim();
    let (scheme, rest) = text.split_at_checked("mailto:".len()).unwrap_or(("", text));
    let address = if scheme.eq_ignore_ascii_case("mailto:") { rest } else { text };
    let Some((user, host)) = address.rsplit_once('@') else { return false };
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "/:?#[]\\@".contains(c));
    plain(user) && plain(host) && host.split('.').all(|label| !label.is_empty())
}

/// Whether a name has only letters, digits, `-` and `_` between single dots, so that a resolver can look it up. The URL
/// standard allows more.
fn is_host_name(name: &str) -> bool {
    let in_alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(in_alphabet))
}

fn basic(url: &Url) -> Option<SecretString> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain = percent_decoded(url.username());
    plain.push(b':');
    plain.extend(percent_decoded(url.password().unwrap_or_default()));
    Some(format!("Basic {}", STANDARD.encode(plain)).into())
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        match tail.get(..2).filter(|_| *first == b'%').and_then(byte_of) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

/// The byte that two hexadecimal digits stand for.
fn byte_of(digits: &[u8]) -> Option<u8> {
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let [high, low] = digits else { return None };
    u8::try_from(value(high)? << 4 | value(low)?).ok()
}

/// The URL as it may be shown and kept: without its user and password.
pub fn without_userinfo(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            let hidden = parsed.set_username("redacted").and_then(|()| parsed.set_password(None));
            hidden.map_or_else(|()| "(not shown)".to_owned(), |()| parsed.to_string())
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn spellings_of_one_address_are_one_address() {
        for text in [
            "http://127.0.0.1/",
            "http://0177.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://１２７.0.0.1/",
            "http://127.1/",
            "http://127。0。0。1/",
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.host, TargetHost::Address("127.0.0.1".parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn what_is_no_callback_url_is_told_apart() {
        for (text, error) in [
            ("", UrlError::NotAUrl),
            ("nonsense", UrlError::NotAUrl),
            ("/path", UrlError::NotAUrl),
            ("https://", UrlError::NotAUrl),
            ("https://./", UrlError::NotAUrl),
            ("https://db.internal../", UrlError::NotAUrl),
            ("https://a!b.example/", UrlError::NotAUrl),
            ("https://a..example/", UrlError::NotAUrl),
            ("dev@customer.example", UrlError::EmailAddress),
            (" First.Last+tag@customer.example\n", UrlError::EmailAddress),
            ("dev@localhost", UrlError::EmailAddress),
            ("mailto:dev@customer.example", UrlError::EmailAddress),
            ("MAILTO:dev@customer.example", UrlError::EmailAddress),
            ("@customer.example", UrlError::NotAUrl),
            ("dev@", UrlError::NotAUrl),
            ("a@b@customer.example", UrlError::NotAUrl),
            ("dev@customer.example/path", UrlError::NotAUrl),
            ("two words@customer.example", UrlError::NotAUrl),
            ("user:password@customer.example", UrlError::Scheme),
            ("mailto:dev", UrlError::Scheme),
            ("ftp://a.example/", UrlError::Scheme),
            ("https://a.example:99999/", UrlError::NotAUrl),
            ("https://a.example:25/", UrlError::BadPort),
            ("https://a.example:0/", UrlError::BadPort),
        ] {
            assert_eq!(Target::parse(text).err(), Some(error), "{text}");
        }
        assert_eq!(Target::parse(&format!("https://a.example/{}", "x".repeat(10_000))).err(), Some(UrlError::TooLong));
    }

    proptest::proptest! {
        /// A queue has the name of its origin. A name that can't be parsed again would stop the queue for ever.
        #[test]
        fn the_origin_of_every_url_reads_back(
            host in "[a-z0-9!$&'()*+,._~-]{1,20}(\\.example)?", port in 1..u16::MAX, https in proptest::bool::ANY,
        ) {
            let scheme = if https { "https" } else { "http" };
            if let Ok(target) = Target::parse(&format!("{scheme}://{host}:{port}/x")) {
                proptest::prop_assert_eq!(Origin::parse(&target.origin.to_string()), Some(target.origin));
            }
        }
    }

    #[test]
    fn user_and_password_become_a_header_and_the_fragment_goes() {
        let target = Target::parse("https://us%40er:p%3Aw@A.example./x?y=1#z").expect("a URL");
        assert_eq!(target.origin.to_string(), "https://a.example:443");
        assert_eq!(target.path.expose_secret(), "/x?y=1");
        assert_eq!(target.authorization.as_ref().map(|value| value.expose_secret()), Some("Basic dXNAZXI6cDp3"));
        assert!(!format!("{target:?}").contains("y=1"));
    }

    #[test]
    fn only_two_hexadecimal_digits_after_a_percent_sign_are_decoded() {
        for (user_info, plain) in [
            ("a%+1:p%zz%4", "a%+1:p%zz%4"),
            ("a%2b1:%41%", "a+1:A%"),
            ("%-1:%e2%82%AC", "%-1:\u{20ac}"),
            ("100%:%%41", "100%:%A"),
        ] {
            let target = Target::parse(&format!("http://{user_info}@host.example/")).expect(user_info);
            let expected = format!("Basic {}", STANDARD.encode(plain));
            assert_eq!(
                target.authorization.as_ref().map(|value| value.expose_secret()),
                Some(&*expected),
                "{user_info}"
            );
        }
    }

    #[test]
    fn labels_may_begin_and_end_with_a_hyphen() {
        for name in ["-dash.example.com", "dash-.example.com", "_under.example.com", "a--b.example.com"] {
            let target = Target::parse(&format!("http://{name}/")).expect(name);
            assert_eq!(target.host, TargetHost::Name(name.into()));
        }
    }
}
