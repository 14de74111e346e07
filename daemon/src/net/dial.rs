//! A new connection: looks the name up, judges every address, connects, checks the peer, and starts TLS. Each phase has
//! its own deadline and its own outcomes of failure.

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

/// How many addresses are tried for one connection.
const RACE: usize = 8;
/// How long one address is tried before the next one is tried as well.
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

/// A connection to an address that was allowed.
pub(crate) struct Dialed {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) peer: SocketAddr,
    /// The receiver chose HTTP/2 in the TLS handshake.
    pub(crate) http2: bool,
    /// The version of TLS, to be shown to people.
    pub(crate) tls: Option<String>,
}

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
    ) -> Result<Dialed, Failed> {
        let found = self.lookup(target, team, policy, end).await?;
        let addresses = allowed(target, team, policy, &found)?;
        let (stream, peer) = self.connect(&addresses, target, team, policy, end).await?;
        self.secure(target, stream, peer, end).await
    }

    /// The addresses of a target. A name that may not be looked up is refused before a name server is asked.
    pub(crate) async fn lookup(
        &self,
        target: &Target,
        team: &str,
        policy: &Policy,
        end: Instant,
    ) -> Result<Vec<IpAddr>, Failed> {
        let name = match &target.host {
            TargetHost::Address(ip) => return Ok(vec![*ip]),
            TargetHost::Name(name) => name,
        };
        judge_name(name, target.origin.port, team, policy).map_err(|denied| Failed::denied(denied, true))?;
        match timeout_at(end.min(Instant::now() + self.deadlines.dns), self.dns.lookup(name)).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error @ DnsError::Timeout)) => Err(Failed::new(Outcome::DnsTimeout, format!("{name}: {error}"))),
            Ok(Err(error)) => Err(Failed::new(Outcome::DnsFailed, format!("{name}: {error}"))),
            Err(_) => Err(Failed::new(Outcome::DnsTimeout, format!("{name}: {}", DnsError::Timeout))),
        }
    }

    /// Connects to one of the addresses. The address of the connected peer is judged once more.
    pub(crate) async fn connect(
        &self,
        addresses: &[SocketAddr],
        target: &Target,
        team: &str,
        policy: &Policy,
        end: Instant,
    ) -> Result<(TcpStream, SocketAddr), Failed> {
        let (stream, peer) = connect(addresses, end.min(Instant::now() + self.deadlines.connect)).await?;
        let with_peer = |failed: Failed| Failed { peer: Some(peer), ..failed };
        judge(&target.host, peer.ip(), peer.port(), team, policy)
            .map_err(|denied| with_peer(Failed::denied(denied, false)))?;
        stream.set_nodelay(true).map_err(|error| with_peer(Failed::new(Outcome::ConnectFailed, error)))?;
        Ok((stream, peer))
    }

    /// Starts TLS if the URL is https.
    pub(crate) async fn secure(
        &self,
        target: &Target,
        stream: TcpStream,
        peer: SocketAddr,
        end: Instant,
    ) -> Result<Dialed, Failed> {
        if !target.origin.https {
            return Ok(Dialed { stream: Box::new(stream), peer, http2: false, tls: None });
        }
        let failed = |outcome, why: String| Failed { peer: Some(peer), ..Failed::new(outcome, why) };
        let name = tls::server_name(target)
            .ok_or_else(|| failed(Outcome::TlsFailed, "the host can't be a TLS server name".to_owned()))?;
        let end = end.min(Instant::now() + self.deadlines.tls);
        match timeout_at(end, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let http2 = session.alpn_protocol() == Some(b"h2");
                let tls = session.protocol_version().map(|version| format!("{version:?}").replace('_', "."));
                Ok(Dialed { stream: Box::new(stream), peer, http2, tls })
            }
            Ok(Err(error)) => Err(failed(Outcome::TlsFailed, error.to_string())),
            Err(_) => Err(failed(Outcome::TlsTimeout, "no TLS within its deadline".to_owned())),
        }
    }
}

/// The addresses to call. If one of them is denied, the name is refused.
pub(crate) fn allowed(
    target: &Target,
    team: &str,
    policy: &Policy,
    found: &[IpAddr],
) -> Result<Vec<SocketAddr>, Failed> {
    let port = target.origin.port;
    let literal = matches!(target.host, TargetHost::Address(_));
    for ip in found {
        judge(&target.host, *ip, port, team, policy).map_err(|denied| Failed::denied(denied, literal))?;
    }
    Ok(interleaved(found).into_iter().take(RACE).map(|ip| SocketAddr::new(ip.to_canonical(), port)).collect())
}

/// Tries the addresses one after the other, without waiting for one to fail. The first connection wins.
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

/// IPv6 and IPv4 in turns, IPv6 first, so that a broken address family costs only one wait.
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

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
