//! Connects to one of a name's addresses as in RFC 8305 ("Happy Eyeballs"): both families are asked for at once, IPv6
//! is preferred, and an address that does not answer costs only a short wait. Every address is judged before it is
//! called, also one whose answer comes late: if it is denied, the whole name is refused.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::dns::{Answer, Answers, DnsError, Family, worse};
use super::failed::Failed;
use crate::model::attempt::Outcome;

/// How many addresses are called for one connection.
pub(crate) const RACE: usize = 8;
/// How long one address is tried before the next one is tried as well (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// How long a name's IPv4 addresses wait for its IPv6 addresses (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Which address is called next, and when.
#[derive(Debug)]
struct Schedule {
    v6: VecDeque<SocketAddr>,
    v4: VecDeque<SocketAddr>,
    called: usize,
    last: Option<Family>,
    /// The next call may begin at this time.
    from: Instant,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { v6: VecDeque::new(), v4: VecDeque::new(), called: 0, last: None, from: now }
    }

    /// Takes the addresses of one family. `more` says whether the other family's answer is still to come.
    fn add(&mut self, family: Family, addresses: impl Iterator<Item = SocketAddr>, more: bool, now: Instant) {
        match family {
            Family::V4 => self.v4.extend(addresses),
            Family::V6 => self.v6.extend(addresses),
        }
        if self.called == 0 {
            let waits_for_v6 = more && self.v6.is_empty() && !self.v4.is_empty();
            self.from = if waits_for_v6 { now + RESOLUTION_DELAY } else { now };
        }
    }

    /// When the next address is called; `None` if there is none to call.
    fn next_at(&self) -> Option<Instant> {
        let any = !(self.v6.is_empty() && self.v4.is_empty());
        (any && self.called < RACE).then_some(self.from)
    }

    /// The next address: the families take turns, IPv6 first, so that a broken family costs only one wait.
    fn take(&mut self, now: Instant) -> Option<SocketAddr> {
        let v6 = |queue: &mut VecDeque<_>| queue.pop_front().map(|address| (Family::V6, address));
        let v4 = |queue: &mut VecDeque<_>| queue.pop_front().map(|address| (Family::V4, address));
        let (family, address) = if self.last == Some(Family::V6) {
            v4(&mut self.v4).or_else(|| v6(&mut self.v6))
        } else {
            v6(&mut self.v6).or_else(|| v4(&mut self.v4))
        }?;
        self.last = Some(family);
        self.called = self.called.saturating_add(1);
        self.from = now + HEAD_START;
        Some(address)
    }

    /// An address could not be connected to, so the next one need not wait.
    fn failed(&mut self, now: Instant) {
        self.from = now;
    }
}

/// Connects to a name, and with which limits.
pub(crate) struct Race<'r> {
    /// The name, for the texts of failures.
    pub(crate) host: &'r str,
    pub(crate) port: u16,
    /// Decides whether these addresses of the name may be called.
    pub(crate) judge: &'r (dyn Fn(&[IpAddr]) -> Result<(), Failed> + Send + Sync),
    /// How long connecting may take, from the first call on.
    pub(crate) patience: Duration,
    pub(crate) end: Instant,
}

/// Why there is no connection so far.
#[derive(Default)]
struct Causes {
    dns: Option<DnsError>,
    /// The first address that could not be connected to, or the first one whose host refused it.
    connect: Option<(io::Error, SocketAddr)>,
}

impl Causes {
    /// A host that refuses tells more than a network that is not there, such as IPv6 on a machine without it.
    fn add(&mut self, error: io::Error, address: SocketAddr) {
        let tells_more = |known: &io::Error| is_refusal(&error) && !is_refusal(known);
        if self.connect.as_ref().is_none_or(|(known, _)| tells_more(known)) {
            self.connect = Some((error, address));
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

impl Race<'_> {
    /// Calls the addresses as their answers come. The first connection wins.
    pub(crate) async fn run(&self, mut answers: Answers) -> Result<(TcpStream, SocketAddr), Failed> {
        let mut schedule = Schedule::new(Instant::now());
        let mut calls = FuturesUnordered::new();
        let mut causes = Causes::default();
        let mut first_called = None;
        let mut end = self.end;
        loop {
            let next_at = schedule.next_at();
            if answers.is_done() && calls.is_empty() && next_at.is_none() {
                return Err(self.failed(causes));
            }
            tokio::select! {
                // An answer is judged before a connection that is ready at the same time is used.
                biased;
                Some((family, answer)) = answers.next(), if !answers.is_done() => {
                    self.hear(family, answer, !answers.is_done(), &mut schedule, &mut causes)?;
                }
                Some((result, address)) = calls.next(), if !calls.is_empty() => match result {
                    Ok(stream) => return Ok((stream, address)),
                    Err(error) => {
                        causes.add(error, address);
                        schedule.failed(Instant::now());
                    }
                },
                () = sleep_until(next_at.unwrap_or(end)), if next_at.is_some_and(|at| at < end) => {
                    let now = Instant::now();
                    let Some(address) = schedule.take(now) else { continue };
                    if first_called.is_none() {
                        first_called = Some(address);
                        end = end.min(now + self.patience);
                    }
                    calls.push(async move { (TcpStream::connect(address).await, address) });
                }
                () = sleep_until(end) => return Err(self.timed_out(first_called)),
            }
        }
    }

    fn hear(
        &self,
        family: Family,
        answer: Answer,
        more: bool,
        schedule: &mut Schedule,
        causes: &mut Causes,
    ) -> Result<(), Failed> {
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                causes.dns = Some(worse(causes.dns.take(), error));
                Vec::new()
            }
        };
        (self.judge)(&found)?;
        let addresses = found.iter().map(|ip| SocketAddr::new(ip.to_canonical(), self.port));
        schedule.add(family, addresses, more, Instant::now());
        Ok(())
    }

    fn failed(&self, causes: Causes) -> Failed {
        if let Some((error, address)) = causes.connect {
            let outcome = if is_refusal(&error) { Outcome::ConnectRefused } else { Outcome::ConnectFailed };
            return Failed { peer: Some(address), ..Failed::new(outcome, error) };
        }
        Failed::of_name(self.host, causes.dns.unwrap_or(DnsError::NotFound))
    }

    fn timed_out(&self, called: Option<SocketAddr>) -> Failed {
        match called {
            Some(_) => {
                Failed { peer: called, ..Failed::new(Outcome::ConnectTimeout, "no connection within its deadline") }
            }
            None => Failed::of_name(self.host, DnsError::Timeout),
        }
    }
}

#[cfg(test)]
#[path = "race_tests.rs"]
mod tests;
