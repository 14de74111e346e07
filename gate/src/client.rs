//! A plain HTTP/1.1 client for tools: one request a connection, bounded in time and size.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};

use crate::body;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Where to.
#[derive(Debug, Clone)]
pub enum Remote {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A host and port in clear.
    Http(String),
    /// A host and port with TLS, and the certificate authorities to trust beside the web's.
    Https(String, Option<PathBuf>),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Remote {
    /// Reads `unix:PATH`, `http://host[:port]` or `https://host[:port]`; nothing may follow the port.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(url: &str, ca_file: Option<PathBuf>) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let wrong = || format!("{url:?} is no address; write unix:PATH, http://HOST:PORT or https://HOST:PORT");
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| matches!(uri.path(), "" | "/") && uri.query().is_none());
        let at = |port: u16| authority.and_then(|authority| host_and_port(authority, port)).ok_or_else(wrong);
        match uri.scheme_str() {
            Some("http") => Ok(Self::Http(at(80)?)),
            Some("https") => Ok(Self::Https(at(443)?, ca_file)),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Http(host) => write!(f, "http://{host}"),
            Self::Https(host, _) => write!(f, "https://{host}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `host:port`; `None` where there is a user, or a port that is none.
pub(crate) fn host_and_port(authority: &http::uri::Authority, usual: u16) -> Option<String> {
    let host = authority.host();
    match authority.port_u16() {
        Some(port) if authority.as_str() == format!("{host}:{port}") => Some(format!("{host}:{port}")),
        None if authority.as_str() == host => Some(format!("{host}:{usual}")),
        _ => None,
    }
}

/// One answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or not to us.
    #[error("no connection: {0}")]
    Unreachable(#[source] io::Error),
    /// The conversation broke off.
    #[error("the conversation broke off: {0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

/// Sends one request and reads the whole answer within `timeout`.
///
/// # Errors
/// [`ClientError`] says how far it came.
pub async fn call(
    remote: &Remote,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
) -> Result<Answer, ClientError> {
    tokio::time::timeout(timeout, exchange(remote, method, path, headers, body))
        .await
        .map_err(|_| ClientError::Timeout)?
}

async fn exchange(
    remote: &Remote,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, ClientError> {
    let host = match remote {
        Remote::Tcp(address) => address.to_string(),
        Remote::Http(host) | Remote::Https(host, _) => host.clone(),
        Remote::Unix(_) => "localhost".to_owned(),
    };
    let length = http::HeaderValue::from(body.len());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(broken)?;
    *request.headers_mut() = headers;
    // The library leaves it out where there is no body.
    request.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    if !request.headers().contains_key(http::header::HOST) {
        request.headers_mut().insert(http::header::HOST, host.parse().map_err(broken)?);
    }
    match remote {
        Remote::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(ClientError::Unreachable)?;
            converse(TokioIo::new(stream), request).await
        }
        Remote::Http(host) => {
            let stream = TcpStream::connect(host).await.map_err(ClientError::Unreachable)?;
            converse(TokioIo::new(stream), request).await
        }
        Remote::Https(host, ca_file) => {
            let stream = TcpStream::connect(host).await.map_err(ClientError::Unreachable)?;
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(broken)?;
            let connector = crate::tls::connector(ca_file.as_deref()).map_err(broken)?;
            let stream = connector.connect(name, stream).await.map_err(broken)?;
            converse(TokioIo::new(stream), request).await
        }
        Remote::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(ClientError::Unreachable)?;
            converse(TokioIo::new(stream), request).await
        }
    }
}

async fn converse<I>(io: I, request: Request<Full<Bytes>>) -> Result<Answer, ClientError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    let body = body::whole(body, MAX_ANSWER).await.map_err(broken)?;
    driver.abort();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

fn broken(error: impl ToString) -> ClientError {
    let said = error.to_string();
    // What these libraries say helps nobody who does not know them.
    let meaning = [
        (
            "CaUsedAsEndEntity",
            "the server's certificate is a certificate authority's own: issue one for the server from it",
        ),
        ("UnknownIssuer", "the server's certificate is from an authority that is not trusted here; see --ca-file"),
        ("InvalidContentType", "no TLS is spoken there; http://, perhaps"),
        ("invalid HTTP version", "what is spoken there is no HTTP; https://, perhaps"),
    ];
    let meaning = meaning.into_iter().find(|(mark, _)| said.contains(mark));
    ClientError::Broken(meaning.map_or(said, |(_, meaning)| meaning.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_refused() {
        let read = |url| Remote::parse(url, None).map(|remote| remote.to_string());
        assert_eq!(read("http://localhost").as_deref(), Ok("http://localhost:80"));
        assert_eq!(read("https://[::1]:9465/").as_deref(), Ok("https://[::1]:9465"));
        assert_eq!(read("unix:/run/x.sock").as_deref(), Ok("/run/x.sock"));
        for wrong in
            ["", "unix:", "localhost:9465", "ftp://a", "http://a/path", "http://u@a", "http://a?x=1", "http://a:99999"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
