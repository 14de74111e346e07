//! What a request must look like before its body is read, and how it is refused.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body_util::Full;
use scale_callback_auth::VerifyError;

use super::plain;
use crate::pace::Refused;

/// Headers that may stand once at the most.
const ONCE: [&str; 3] =
    [scale_callback_auth::header::ID, scale_callback_auth::header::TIMESTAMP, scale_callback_auth::header::AUTH];

/// Why a request goes no further. A caller hears a status and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Method,
    Target,
    Path,
    Host,
    Upgrade,
    Repeated,
    Expectation,
    TooLarge,
    TooSlow,
    Broken,
    Unproven(VerifyError),
    InFlight,
    /// Too many bodies at once.
    Overloaded,
    /// As many callbacks are remembered as may be.
    Full,
}

impl Refusal {
    /// For the metrics.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Target => "target",
            Self::Path => "path",
            Self::Host => "host",
            Self::Upgrade => "upgrade",
            Self::Repeated => "repeated_header",
            Self::Expectation => "expectation",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken_off",
            Self::Unproven(error) => error.code(),
            Self::InFlight => "in_flight",
            Self::Overloaded => "overloaded",
            Self::Full => "remembers_full",
        }
    }

    /// The answer. `is_read` says that nothing of the request is still to come, `bytes` how much was read of its body.
    pub(super) fn response(self, is_read: bool, bytes: usize) -> Response<Full<Bytes>> {
        let status = match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Target | Self::Host | Self::Upgrade | Self::Repeated | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unproven(_) => StatusCode::UNAUTHORIZED,
            Self::InFlight | Self::Overloaded | Self::Full => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = plain(status);
        response.extensions_mut().insert(Refused(bytes));
        if self == Self::Method {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        // What comes behind it on HTTP/1.1 belongs to a request that nobody reads.
        if !is_read {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Judges everything but who sent it.
pub(super) fn shape(head: &Parts, path: &str) -> Result<(), Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::Method);
    }
    if head.headers.contains_key(header::UPGRADE) {
        return Err(Refusal::Upgrade);
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    match head.version {
        // The target of HTTP/2 always has its authority beside it; a Host that names another is a second story.
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
