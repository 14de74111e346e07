//! What a request must look like before its body is read, and how a request is refused. Nothing here reads a body or
//! verifies a signature.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body_util::Full;
use scale_callback_auth::VerifyError;
use scale_callback_serve::refusal_pace::Refused;

use super::response::plain;

/// Headers that a request may hold once.
const ONCE: [&str; 3] =
    [scale_callback_auth::header::ID, scale_callback_auth::header::TIMESTAMP, scale_callback_auth::header::AUTH];

/// The answer to HTTP/1.0. It is the only refusal that says more than a status, because it tells nothing about keys, and the
/// person who set up the proxy in front of the gate must read it.
const OLD_VERSION: &str = "The gate does not take HTTP/1.0. In nginx, write beside proxy_pass:\n    \
    proxy_http_version 1.1;\n    proxy_set_header Connection \"\";\n";

/// Why a request goes no further. The caller gets a status and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Method,
    Version,
    Target,
    Path,
    Host,
    Repeated,
    Expectation,
    TooLarge,
    TooSlow,
    Broken,
    NotVerified(VerifyError),
    InFlight,
    /// Too many bodies at once.
    Overloaded,
    /// Too many bodies of one sender at once.
    SenderOverloaded,
    /// It came more slowly than the others when room was short.
    GaveWay,
    /// No further callback can be remembered.
    Full,
}

impl Refusal {
    /// Every refusal that is not the verifier's.
    pub(super) const OWN: [Self; 15] = [
        Self::Method,
        Self::Version,
        Self::Target,
        Self::Path,
        Self::Host,
        Self::Repeated,
        Self::Expectation,
        Self::TooLarge,
        Self::TooSlow,
        Self::Broken,
        Self::InFlight,
        Self::Overloaded,
        Self::SenderOverloaded,
        Self::GaveWay,
        Self::Full,
    ];

    /// Its name in metrics and logs.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Version => "http_version",
            Self::Target => "target",
            Self::Path => "path",
            Self::Host => "host",
            Self::Repeated => "repeated_header",
            Self::Expectation => "expectation",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken_off",
            Self::NotVerified(error) => error.code(),
            Self::InFlight => "in_flight",
            Self::Overloaded => "overloaded",
            Self::SenderOverloaded => "sender_overloaded",
            Self::GaveWay => "gave_way",
            Self::Full => "remembers_full",
        }
    }

    /// The answer. `is_read` says that the whole request was read, and `bytes` how much of its body was.
    pub(super) fn response(self, is_read: bool, bytes: usize) -> Response<Full<Bytes>> {
        let status = match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Version | Self::Target | Self::Host | Self::Repeated | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotVerified(_) => StatusCode::UNAUTHORIZED,
            Self::InFlight | Self::Overloaded | Self::SenderOverloaded | Self::GaveWay | Self::Full => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        let mut response = plain(status);
        if self == Self::Version {
            *response.body_mut() = Full::from(OLD_VERSION);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        response.extensions_mut().insert(Refused(bytes));
        if self == Self::Method {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        // On HTTP/1.1 the bytes that follow belong to a request that is not read any further.
        if !is_read {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Judges the form of a request: everything that needs no key.
pub(super) fn shape(head: &Parts, path: &str) -> Result<(), Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::Method);
    }
    // A wish to upgrade is ignored, as RFC 9110 allows: Java's client has one in each of its requests.
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    match head.version {
        // A request of HTTP/2 names its authority beside the target. A Host header must not name another one.
        Version::HTTP_2 => {
            let authority = head.uri.authority().map(http::uri::Authority::as_str).ok_or(Refusal::Host)?;
            if authority.contains('@')
                || another.is_some()
                || host.is_some_and(|host| host.as_bytes() != authority.as_bytes())
            {
                return Err(Refusal::Host);
            }
        }
        Version::HTTP_11 => {
            if head.uri.scheme().is_some() || head.uri.authority().is_some() {
                return Err(Refusal::Target);
            }
            if host.is_none_or(|host| host.is_empty()) || another.is_some() {
                return Err(Refusal::Host);
            }
        }
        // Proxies that speak HTTP/1.0 are set up so by default: they must be told.
        Version::HTTP_10 => return Err(Refusal::Version),
        _ => return Err(Refusal::Target),
    }
    if head.uri.path_and_query().map(http::uri::PathAndQuery::as_str) != Some(path) {
        return Err(Refusal::Path);
    }
    if ONCE.iter().any(|name| head.headers.get_all(*name).iter().count() > 1) {
        return Err(Refusal::Repeated);
    }
    match head.headers.get(header::EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Err(Refusal::Expectation),
        _ => Ok(()),
    }
}
