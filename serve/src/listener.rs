//! Where a server listens, who is at the other end of a connection, and the TLS handshake. Nothing here speaks HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::tls::ServerTls;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process of this machine, by its user id where the system tells it.
    Unix(Option<u32>),
}

/// Where a server listens.
#[derive(Debug)]
pub enum Listener {
    /// On TCP, with HTTP/1.1.
    Tcp(TcpListener),
    /// On TCP with TLS, with HTTP/1.1 or HTTP/2 as the client chooses.
    Tls(TcpListener, Arc<ServerTls>),
    /// On a socket in the file system, with HTTP/1.1.
    Unix(UnixListener),
}

/// A connection before its handshake.
pub(crate) enum Accepted {
    Plain(Box<dyn Connection>),
    Tls(TcpStream, TlsAcceptor),
}

/// A stream to speak HTTP on.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

impl Peer {
    /// The IP address; `None` for a process of this machine.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Accepted::Plain(Box::new(stream)), Peer::Tcp(address)))
            }
            Self::Tls(listener, tls) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Accepted::Tls(stream, tls.acceptor()), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Accepted::Plain(Box::new(stream)), Peer::Unix(user)))
            }
        }
    }
}

impl Accepted {
    /// The stream below the handshake.
    pub(crate) fn raw(&mut self) -> &mut (dyn Connection + 'static) {
        match self {
            Self::Plain(stream) => &mut **stream,
            Self::Tls(stream, _) => stream,
        }
    }

    /// The stream to speak HTTP on, and whether it is HTTP/2; `None` if the handshake failed or took too long.
    pub(crate) async fn secured(self, within: Duration) -> Option<(Box<dyn Connection>, bool)> {
        match self {
            Self::Plain(stream) => Some((stream, false)),
            Self::Tls(stream, acceptor) => {
                let stream = tokio::time::timeout(within, acceptor.accept(stream)).await.ok()?.ok()?;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Some((Box::new(stream), is_http2))
            }
        }
    }
}
