//! Why there is no connection to a receiver, whatever the phase.

use std::net::SocketAddr;

use super::dns::DnsError;
use super::egress::Denied;
use crate::model::attempt::Outcome;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) outcome: Outcome,
    /// The host is a literal address that is refused, so no retry can succeed.
    pub(crate) hopeless: bool,
    pub(crate) peer: Option<SocketAddr>,
    /// The reason, as the operator sees it.
    pub(crate) why: String,
}

impl Failed {
    pub(crate) fn new(outcome: Outcome, why: impl ToString) -> Self {
        Self { outcome, hopeless: false, peer: None, why: why.to_string() }
    }

    pub(crate) fn denied(denied: Denied, literal: bool) -> Self {
        Self { hopeless: literal, ..Self::new(Outcome::AddressDenied, denied) }
    }

    /// The name has no address, as far as we can find out.
    pub(crate) fn of_name(name: &str, error: DnsError) -> Self {
        let outcome = if error == DnsError::Timeout { Outcome::DnsTimeout } else { Outcome::DnsFailed };
        Self::new(outcome, format!("{name}: {error}"))
    }
}
