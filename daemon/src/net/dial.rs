//! A new connection: looks the name up, judges every address, connects, checks the peer, and starts TLS. Each phase has
//! its own deadline and its own outcomes of failure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::again::Again;
use super::dns::{Answers, Dns};
use super::egress::{Policy, judge, judge_name};
use super::failed::Failed;
use super::meter::{Meter, MeteredStream};
use super::race::Race;
use super::target::{Target, TargetHost};
use super::tls;
use crate::model::attempt::Outcome;

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
    /// What the receiver may send over it.
    pub(crate) meter: Arc<Meter>,
    pub(crate) peer: SocketAddr,
    /// The receiver chose HTTP/2 in the TLS handshake.
    pub(crate) http2: bool,
    /// The version of TLS, to be shown to people.
    pub(crate) tls: Option<String>,
}

pub(crate) struct Dialer {
    pub(crate) dns: Dns,
    /// What it offers in the TLS handshake, and the same without HTTP/2.
    pub(crate) tls: TlsConnector,
    pub(crate) http1: TlsConnector,
    pub(crate) deadlines: Deadlines,
}

impl Dialer {
    pub(crate) async fn dial(
        &self,
        target: &Target,
        team: &str,
        policy: &Policy,
        end: Instant,
        how: Again,
    ) -> Result<Dialed, Failed> {
        let answers = match name_to_ask(target, team, policy)? {
            Asked::Name(name) => self.dns.ask(name, self.dns_end(end)),
            Asked::Nothing(ip) => Answers::known(vec![ip]),
        };
        let (stream, peer) = self.connect(answers, target, team, policy, end).await?;
        self.secure(target, stream, peer, end, how).await
    }

    /// All addresses of a target. A name that may not be looked up is refused before a name server is asked.
    pub(crate) async fn lookup(
        &self,
        target: &Target,
        team: &str,
        policy: &Policy,
        end: Instant,
    ) -> Result<Vec<IpAddr>, Failed> {
        match name_to_ask(target, team, policy)? {
            Asked::Nothing(ip) => Ok(vec![ip]),
            Asked::Name(name) => {
                self.dns.lookup(name, self.dns_end(end)).await.map_err(|error| Failed::of_name(name, error))
            }
        }
    }

    fn dns_end(&self, end: Instant) -> Instant {
        end.min(Instant::now() + self.deadlines.dns)
    }

    /// Connects to one of the addresses. The address of the connected peer is judged once more.
    pub(crate) async fn connect(
        &self,
        answers: Answers,
        target: &Target,
        team: &str,
        policy: &Policy,
        end: Instant,
    ) -> Result<(TcpStream, SocketAddr), Failed> {
        let race = Race {
            host: &target.origin.host,
            port: target.origin.port,
            judge: &|found| allowed(target, team, policy, found),
            patience: self.deadlines.connect,
            end,
        };
        let (stream, called) = race.run(answers).await?;
        let peer = stream.peer_addr().unwrap_or(called);
        let with_peer = |failed: Failed| Failed { peer: Some(peer), ..failed };
        judge_peer(target, peer, team, policy).map_err(with_peer)?;
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
        how: Again,
    ) -> Result<Dialed, Failed> {
        let meter = Arc::new(Meter::new());
        let stream = MeteredStream::new(stream, Arc::clone(&meter));
        if !target.origin.https {
            return Ok(Dialed { stream: Box::new(stream), meter, peer, http2: false, tls: None });
        }
        let failed = |outcome, why: String| Failed { peer: Some(peer), ..Failed::new(outcome, why) };
        let name = tls::server_name(target)
            .ok_or_else(|| failed(Outcome::TlsFailed, "the host can't be a TLS server name".to_owned()))?;
        let end = end.min(Instant::now() + self.deadlines.tls);
        let tls = if how == Again::OverHttp1 { &self.http1 } else { &self.tls };
        match timeout_at(end, tls.connect(name, stream)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let http2 = session.alpn_protocol() == Some(b"h2");
                let tls = session.protocol_version().map(|version| format!("{version:?}").replace('_', "."));
                Ok(Dialed { stream: Box::new(stream), meter, peer, http2, tls })
            }
            Ok(Err(error)) => Err(failed(Outcome::TlsFailed, error.to_string())),
            Err(_) => Err(failed(Outcome::TlsTimeout, "no TLS within its deadline".to_owned())),
        }
    }
}

enum Asked<'t> {
    Name(&'t str),
    /// The URL has an address.
    Nothing(IpAddr),
}

/// What must be looked up. A name of special use is refused.
fn name_to_ask<'t>(target: &'t Target, team: &str, policy: &Policy) -> Result<Asked<'t>, Failed> {
    match &target.host {
        TargetHost::Address(ip) => Ok(Asked::Nothing(*ip)),
        TargetHost::Name(name) => judge_name(name, target.origin.port, team, policy)
            .map(|()| Asked::Name(name))
            .map_err(|denied| Failed::denied(denied, true)),
    }
}

/// Judges the address that was really connected to.
fn judge_peer(target: &Target, peer: SocketAddr, team: &str, policy: &Policy) -> Result<(), Failed> {
    judge(&target.host, peer.ip(), peer.port(), team, policy).map_err(|denied| Failed::denied(denied, false))
}

/// Judges the addresses that were found. If one of them is denied, the name is refused.
pub(crate) fn allowed(target: &Target, team: &str, policy: &Policy, found: &[IpAddr]) -> Result<(), Failed> {
    let literal = matches!(target.host, TargetHost::Address(_));
    let judged = |ip: &IpAddr| judge(&target.host, *ip, target.origin.port, team, policy);
    found.iter().try_for_each(judged).map_err(|denied| Failed::denied(denied, literal))
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
