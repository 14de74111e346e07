//! One attempt to POST a callback, and the closed set of its outcomes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Timestamp;
use crate::base::named::named;

named! {
    /// The outcome of an attempt. It has the same name in metrics, rows, API and docs.
    pub enum Outcome {
        Ok = "ok",
        Redirect = "redirect",
        Gone = "gone",
        RateLimited = "rate_limited",
        ClientError = "client_error",
        ServerError = "server_error",
        BadStatus = "bad_status",
        DnsFailed = "dns_failed",
        DnsTimeout = "dns_timeout",
        AddressDenied = "address_denied",
        ConnectRefused = "connect_refused",
        ConnectFailed = "connect_failed",
        ConnectTimeout = "connect_timeout",
        TlsFailed = "tls_failed",
        TlsTimeout = "tls_timeout",
        WriteFailed = "write_failed",
        HeadTimeout = "head_timeout",
        HeadReset = "head_reset",
        HeadInvalid = "head_invalid",
        UrlInvalid = "url_invalid",
        EmailNotSupported = "email_not_supported",
        OriginNotAllowed = "origin_not_allowed",
        HttpNotAllowed = "http_not_allowed",
        NoUrl = "no_url",
        NoKey = "no_key",
        RecordChanged = "record_changed",
        BodyGone = "body_gone",
        Panicked = "panicked",
        Interrupted = "interrupted",
        StoreRejected = "store_rejected",
    }
}

impl Outcome {
    /// Whether the endpoint caused it. The other outcomes are refusals before the endpoint was called, or failures of
    /// ours.
    pub fn is_of_the_endpoint(self) -> bool {
        let refused = matches!(
            self,
            Self::UrlInvalid
                | Self::EmailNotSupported
                | Self::OriginNotAllowed
                | Self::HttpNotAllowed
                | Self::NoUrl
                | Self::NoKey
        );
        let ours = matches!(
            self,
            Self::RecordChanged | Self::BodyGone | Self::Panicked | Self::Interrupted | Self::StoreRejected
        );
        !refused && !ours
    }

    /// The outcome of a whole response head.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Ok,
            300..=399 => Self::Redirect,
            410 => Self::Gone,
            429 => Self::RateLimited,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::BadStatus,
        }
    }
}

/// Names what of a team's settings a request was sent with: the beginning of the hash of a `SentWith`. So whoever sends knows it without asking the store, and two instances that
/// send with the same settings use one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SentWithId(pub i64);

/// One finished attempt, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub outcome: Outcome,
    /// Whether any byte of the request left.
    pub sent: bool,
    pub status: Option<u16>,
    pub begun_at: Timestamp,
    pub took: Duration,
    pub peer: Option<SocketAddr>,
    /// A connection gave the request back unsent, or the receiver said that it had not handled it, so it was sent over a
    /// new connection.
    pub redialed: bool,
    /// With what of its team's settings it was sent; `None` where that was not found.
    pub sent_with: Option<SentWithId>,
    /// The first bytes of the answer, which may not be text, or the reason of a refusal as the operator sees it.
    pub snippet: Bytes,
}

impl Attempt {
    pub fn ended_at(&self) -> Timestamp {
        self.begun_at.plus(self.took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_outcome() {
        for (status, outcome) in [
            (100, Outcome::BadStatus),
            (200, Outcome::Ok),
            (299, Outcome::Ok),
            (301, Outcome::Redirect),
            (404, Outcome::ClientError),
            (410, Outcome::Gone),
            (429, Outcome::RateLimited),
            (503, Outcome::ServerError),
            (600, Outcome::BadStatus),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }
}
