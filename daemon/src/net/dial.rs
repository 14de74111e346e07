//! A new connection: look the name up, judge every address, connect, check the peer, TLS. Each phase has its own
//! deadline and its own failures.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dns::{Dns, DnsError};
use super::egress::{Denied, Policy, judge, judge_name};
use super::target::{Target, TargetHost};
use super::tls;
use crate::model::attempt::Outcome;

/// Addresses raced for one connection.
const RACE: usize = 8;
/// The head start of one address before the next is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);

/// Deadlines of an attempt's phases; `total` bounds them all.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    pub dns: Duration,
    pub connect: Duration,
    pub tls: Duration,
    pub head: Duration,
    pub total: Duration,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why no connection came about.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) outcome: Outcome,
    /// The host is a literal address that is refused: it will be refused tomorrow.
    pub(crate) hopeless: bool,
    pub(crate) peer: Option<SocketAddr>,
    /// The operator's reason.
    pub(crate) why: String,
}

impl Failed {
    fn new(outcome: Outcome, why: impl ToString) -> Self {
        Self { outcome, hopeless: false, peer: None, why: why.to_string() }
    }

    fn denied(denied: Denied, literal: bool) -> Self {
        Self { hopeless: literal, ..Self::new(Outcome::AddressDenied, denied) }
    }
}

pub(crate) struct Dialer {
    pub(crate) dns: Dns,
    pub(crate) tls: TlsConnector,
    pub(crate) deadlines: Deadlines,
}

impl Dialer {
    pub(crate) async fn dial(
        &self,
        target: &Target,
        team: &str,
        policy: &Policy,
        end: Instant,
    ) -> Result<(Box<dyn Stream>, SocketAddr), Failed> {
        let within = |phase: Duration| end.min(Instant::now() + phase);
        let addresses = self.addresses(target, team, policy, within(self.deadlines.dns)).await?;
        let (stream, peer) = connect(&addresses, within(self.deadlines.connect)).await?;
        let with_peer = |failed: Failed| Failed { peer: Some(peer), ..failed };
        // What we are connected to, not what we asked for, decides.
        judge(&target.host, peer.ip(), peer.port(), team, policy)
            .map_err(|denied| with_peer(Failed::denied(denied, false)))?;
        stream.set_nodelay(true).map_err(|error| with_peer(Failed::new(Outcome::ConnectFailed, error)))?;
        if !target.origin.https {
            return Ok((Box::new(stream), peer));
        }
        let name = tls::server_name(target)
            .ok_or_else(|| with_peer(Failed::new(Outcome::TlsFailed, "the host is no server name")))?;
        match timeout_at(within(self.deadlines.tls), self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok((Box::new(stream), peer)),
            Ok(Err(error)) => Err(with_peer(Failed::new(Outcome::TlsFailed, error))),
            Err(_) => Err(with_peer(Failed::new(Outcome::TlsTimeout, "no TLS within its deadline"))),
        }
    }

    /// The addresses to call, each of them allowed: one bad address refuses the name.
    async fn addresses(
        &self,
        target: &Target,
        team: &str,
        policy: &Policy,
        end: Instant,
    ) -> Result<Vec<SocketAddr>, Failed> {
        let port = target.origin.port;
        let (found, literal) = match &target.host {
            TargetHost::Address(ip) => (vec![*ip], true),
            TargetHost::Name(name) => {
                judge_name(name, port, team, policy).map_err(|denied| Failed::denied(denied, true))?;
                (self.lookup(name, end).await?, false)
            }
        };
        for ip in &found {
            judge(&target.host, *ip, port, team, policy).map_err(|denied| Failed::denied(denied, literal))?;
        }
        Ok(interleaved(&found).into_iter().take(RACE).map(|ip| SocketAddr::new(ip.to_canonical(), port)).collect())
    }

    async fn lookup(&self, name: &str, end: Instant) -> Result<Vec<IpAddr>, Failed> {
        match timeout_at(end, self.dns.lookup(name)).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error @ DnsError::Timeout)) => Err(Failed::new(Outcome::DnsTimeout, error)),
            Ok(Err(error)) => Err(Failed::new(Outcome::DnsFailed, error)),
            Err(_) => Err(Failed::new(Outcome::DnsTimeout, DnsError::Timeout)),
        }
    }
}

/// Races the addresses, each with a head start over the next.
async fn connect(addresses: &[SocketAddr], end: Instant) -> Result<(TcpStream, SocketAddr), Failed> {
    let race = async {
        let mut running: FuturesUnordered<_> = addresses
            .iter()
            .zip(0_u32..)
            .map(|(address, place)| async move {
                tokio::time::sleep(HEAD_START.saturating_mul(place)).await;
                (TcpStream::connect(address).await, *address)
            })
            .collect();
        let mut first_error = None;
        while let Some((result, address)) = running.next().await {
            match result {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => first_error = first_error.or(Some((error, address))),
            }
        }
        Err(first_error)
    };
    match timeout_at(end, race).await {
        Ok(Ok((stream, address))) => {
            let peer = stream.peer_addr().unwrap_or(address);
            Ok((stream, peer))
        }
        Ok(Err(Some((error, address)))) => {
            let refused = error.kind() == io::ErrorKind::ConnectionRefused;
            let outcome = if refused { Outcome::ConnectRefused } else { Outcome::ConnectFailed };
            Err(Failed { peer: Some(address), ..Failed::new(outcome, error) })
        }
        Ok(Err(None)) => Err(Failed::new(Outcome::DnsFailed, DnsError::NotFound)),
        Err(_) => Err(Failed {
            peer: addresses.first().copied(),
            ..Failed::new(Outcome::ConnectTimeout, "no connection within its deadline")
        }),
    }
}

/// IPv6 and IPv4 in turns, IPv6 first, so that a broken family costs one head start.
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v6 = addresses.iter().filter(|ip| ip.is_ipv6());
    let mut v4 = addresses.iter().filter(|ip| ip.is_ipv4());
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        match (v6.next(), v4.next()) {
            (None, None) => return ordered,
            (a, b) => ordered.extend(a.into_iter().chain(b)),
        }
    }
}
