//! Wrong tokens: what becomes of a request that presents one. It never concerns a request with a right token, whose check
//! comes first.
//!
//! Each refusal waits a moment, so that trying tokens is slow. Waiting refusals are few, in all and for each source, and
//! the others are refused at once, so that nobody can fill the API's places with them. Each source is logged at most once
//! a minute.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::clock::Timestamp;

/// How long a refusal waits.
const WAIT: Duration = Duration::from_secs(1);
/// How many refusals wait at once in all: fewer than half of the API's places.
const WAITING: usize = 48;
/// How many of them may be of one source.
const WAITING_OF_SOURCE: usize = 8;
/// How often one source is logged.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// How many sources are remembered. Further ones share one place, and so one line a minute.
const SOURCES: usize = 1_024;

/// Where a request came from: an IPv4 address, or an IPv6 network of 64 bits, in which one host has all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Address(IpAddr),
    Net(Ipv6Addr),
    /// Any of those that are not remembered.
    Others,
}

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(ip) if !ip.is_loopback() => Self::Net(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            other => Self::Address(other),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Net(net) => write!(f, "{net}/64"),
            Self::Others => f.write_str("others"),
        }
    }
}

/// What to do with one refusal.
pub(super) struct Verdict {
    /// Write a line now, with the number of refusals of this source since its last line.
    pub(super) log: Option<u64>,
    /// Wait before the answer.
    pub(super) wait: Option<Waiting>,
}

/// A refusal that waits. It keeps its place until it is dropped.
pub(super) struct Waiting {
    _place: OwnedSemaphorePermit,
    _of_source: OwnedSemaphorePermit,
}

impl Waiting {
    pub(super) async fn over(self) {
        tokio::time::sleep(WAIT).await;
    }
}

pub(super) struct Refusals {
    waiting: Arc<Semaphore>,
    sources: Mutex<HashMap<Source, Known>>,
}

struct Known {
    waiting: Arc<Semaphore>,
    seen_at: Timestamp,
    logged_at: Option<Timestamp>,
    /// Refusals since the last line.
    unlogged: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { waiting: Arc::new(Semaphore::new(WAITING)), sources: Mutex::default() }
    }
}

impl Refusals {
    /// Notes a refusal.
    pub(super) fn refused(&self, source: Source, now: Timestamp) -> Verdict {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, known| !known.is_old(now));
        }
        let is_full = sources.len() >= SOURCES && !sources.contains_key(&source);
        let source = if is_full { Source::Others } else { source };
        let known = sources.entry(source).or_insert_with(|| Known::new(now));
        let log = known.count(now);
        let of_source = Arc::clone(&known.waiting).try_acquire_owned().ok();
        drop(sources);
        let wait = of_source.and_then(|of_source| {
            let place = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
            Some(Waiting { _place: place, _of_source: of_source })
        });
        Verdict { log, wait }
    }
}

impl Known {
    fn new(now: Timestamp) -> Self {
        let waiting = Arc::new(Semaphore::new(WAITING_OF_SOURCE));
        Self { waiting, seen_at: now, logged_at: None, unlogged: 0 }
    }

    /// The number to log now, if a line is due. A clock that was set back makes a line due.
    fn count(&mut self, now: Timestamp) -> Option<u64> {
        self.seen_at = now;
        self.unlogged = self.unlogged.saturating_add(1);
        let is_due = self.logged_at.is_none_or(|last| now < last || now.since(last) >= LOGGED_EVERY);
        is_due.then(|| {
            self.logged_at = Some(now);
            std::mem::take(&mut self.unlogged)
        })
    }

    /// Whether nothing is lost by forgetting it.
    fn is_old(&self, now: Timestamp) -> bool {
        now < self.seen_at || now.since(self.seen_at) >= LOGGED_EVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn source(n: u32) -> Source {
        Source::of(IpAddr::V4(n.into()))
    }

    #[test]
    fn each_source_is_logged_once_a_minute_with_its_count() {
        let refusals = Refusals::default();
        let logged = |source, seconds| refusals.refused(source, START.plus(Duration::from_secs(seconds))).log;
        assert_eq!(logged(source(1), 0), Some(1));
        for n in 0..299 {
            assert_eq!(logged(source(1), n / 10), None, "{n}");
        }
        assert_eq!(logged(source(2), 5), Some(1), "another source has its own line");
        assert_eq!(logged(source(1), 60), Some(300));
        assert_eq!(logged(source(1), 61), None);
    }

    #[test]
    fn waiting_refusals_are_few_in_all_and_for_each_source() {
        let refusals = Refusals::default();
        let mut held = Vec::new();
        let mut wait = |n| {
            let waiting = refusals.refused(source(n), START).wait;
            let waits = waiting.is_some();
            held.extend(waiting);
            waits
        };
        let of_one = (0..100).filter(|_| wait(0)).count();
        assert_eq!(of_one, WAITING_OF_SOURCE);
        let of_all = (1..1_000).filter(|n| wait(*n)).count();
        assert_eq!(of_one + of_all, WAITING);
        held.clear();
        assert!(refusals.refused(source(0), START).wait.is_some(), "a place that is given back is taken again");
    }

    #[test]
    fn the_memory_of_sources_is_bounded_and_the_rest_shares_one_line() {
        let refusals = Refusals::default();
        let at = |seconds| START.plus(Duration::from_secs(seconds));
        let many = u32::try_from(SOURCES).unwrap() * 3;
        let lines = (0..many).filter(|n| refusals.refused(source(*n), at(0)).log.is_some()).count();
        assert_eq!(lines, SOURCES + 1, "one for each that is remembered, and one for the others");
        assert!(refusals.sources.lock().unwrap().len() <= SOURCES + 1);
        // A minute later the old ones make room.
        assert_eq!(refusals.refused(source(many), at(60)).log, Some(1));
        assert_eq!(refusals.sources.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_host_with_many_addresses_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.1");
    }
}
