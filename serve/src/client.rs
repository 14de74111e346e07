//! A plain HTTP/1.1 client for tools: one request on a connection of its own, bounded in time and size. It never follows
//! a redirect, never tries again, and takes no proxy from the environment.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::body;
use crate::client_tls::connector;
use crate::tls::TlsError;
use crate::unix;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// The server that is called.
#[derive(Debug, Clone)]
pub enum Remote {
    /// A TCP address, without TLS.
    Tcp(SocketAddr),
    /// A host and port, without TLS.
    Http(String),
    /// A host and port with TLS, and a file with certificate authorities to trust beside the web's.
    Https(String, Option<PathBuf>),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// A text that is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address; write unix:PATH, http://HOST:PORT or https://HOST:PORT")]
pub struct AddressError(pub String);

/// One whole answer.
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
    /// Nobody listens there, or this process may not connect.
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    /// There was a connection, and no whole answer came over it.
    #[error("the conversation broke off: {0}")]
    Broken(BrokenOff),
    /// The answer took too long.
    #[error("no answer in time")]
    Timeout,
}

/// Why a conversation broke off. The errors that people meet most often are told in words that help them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenOff {
    /// The server presents the certificate of a certificate authority as its own.
    #[error(
        "the server's certificate is a certificate authority's own; issue a certificate for the server from that authority"
    )]
    AuthorityAsServer,
    /// The server's certificate comes from an authority that the client does not trust.
    #[error("the server's certificate comes from an authority that is not trusted here; see --ca-file")]
    UnknownIssuer,
    /// The server does not speak TLS.
    #[error("the server does not speak TLS; perhaps write http:// instead of https://")]
    NotTls,
    /// What the server says is not HTTP.
    #[error("the server's answer is not HTTP; perhaps write https:// instead of http://")]
    NotHttp,
    /// The file of certificate authorities cannot be used.
    #[error("{0}")]
    AuthorityFile(TlsError),
    /// Any other reason.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Remote {
    /// Reads `unix:PATH`, `http://HOST[:PORT]` or `https://HOST[:PORT]`; nothing may follow the port.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(url: &str, ca_file: Option<PathBuf>) -> Result<Self, AddressError> {
        if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let wrong = || AddressError(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| matches!(uri.path(), "" | "/") && uri.query().is_none());
        let at = |port: u16| authority.and_then(|authority| host_and_port(authority, port)).ok_or_else(wrong);
        match uri.scheme_str() {
            Some("http") => Ok(Self::Http(at(80)?)),
            Some("https") => Ok(Self::Https(at(443)?, ca_file)),
            _ => Err(wrong()),
        }
    }

    /// What the `host` header says.
    fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Http(host) | Self::Https(host, _) => host.clone(),
            Self::Unix(_) => "localhost".to_owned(),
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

/// `HOST:PORT` of an authority, with `default_port` where it names none; `None` where it names a user, or a port that is
/// not a number.
#[must_use]
pub fn host_and_port(authority: &Authority, default_port: u16) -> Option<String> {
    let host = authority.host();
    match authority.port_u16() {
        Some(port) if authority.as_str() == format!("{host}:{port}") => Some(format!("{host}:{port}")),
        None if authority.as_str() == host => Some(format!("{host}:{default_port}")),
        _ => None,
    }
}

/// Checks that a file of certificate authorities can be used, before anything is sent.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn check_ca_file(ca_file: Option<&Path>) -> Result<(), TlsError> {
    connector(ca_file).map(drop)
}

/// Sends one request and reads the whole answer within `timeout`.
///
/// # Errors
/// [`ClientError`] says how far the call came.
pub async fn call(
    remote: &Remote,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
) -> Result<Answer, ClientError> {
    let calling = async {
        let request = request(remote, method, path, headers, body)?;
        exchange(remote, request).await
    };
    tokio::time::timeout(timeout, calling).await.map_err(|_| ClientError::Timeout)?
}

fn request(
    remote: &Remote,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let length = HeaderValue::from(body.len());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(broken)?;
    *request.headers_mut() = headers;
    // The library leaves the length out where there is no body.
    request.headers_mut().insert(header::CONTENT_LENGTH, length);
    if !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, remote.host().parse().map_err(broken)?);
    }
    Ok(request)
}

async fn exchange(remote: &Remote, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
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
            let stream = connect_tls(host, ca_file.as_deref()).await?;
            converse(TokioIo::new(stream), request).await
        }
        Remote::Unix(path) => {
            let stream = unix::connect(path).await.map_err(ClientError::Unreachable)?;
            converse(TokioIo::new(stream), request).await
        }
    }
}

async fn connect_tls(host: &str, ca_file: Option<&Path>) -> Result<TlsStream<TcpStream>, ClientError> {
    let stream = TcpStream::connect(host).await.map_err(ClientError::Unreachable)?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(broken)?;
    let connector = connector(ca_file).map_err(|error| ClientError::Broken(BrokenOff::AuthorityFile(error)))?;
    connector.connect(name, stream).await.map_err(|error| ClientError::Broken(handshake_broke_off(error)))
}

async fn converse<I>(io: I, request: Request<Full<Bytes>>) -> Result<Answer, ClientError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(exchange_broke_off)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(exchange_broke_off)?;
    let (head, body) = response.into_parts();
    let body = body::whole(body, MAX_ANSWER).await.map_err(broken)?;
    driver.abort();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Broken(BrokenOff::Other(error.into()))
}

fn exchange_broke_off(error: hyper::Error) -> ClientError {
    if error.is_parse() && !error.is_parse_too_large() && !error.is_parse_status() {
        return ClientError::Broken(BrokenOff::NotHttp);
    }
    broken(error)
}

fn handshake_broke_off(error: io::Error) -> BrokenOff {
    use rustls::{CertificateError, Error, InvalidMessage};
    match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => BrokenOff::UnknownIssuer,
        // The library has no type of its own for this one: its name stands in what it prints.
        Some(Error::InvalidCertificate(CertificateError::Other(other)))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            BrokenOff::AuthorityAsServer
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => BrokenOff::NotTls,
        _ => BrokenOff::Other(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

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
            assert_eq!(read(wrong), Err(AddressError(wrong.to_owned())), "{wrong}");
        }
    }

    /// Calls a server that reads a little, says these bytes and closes.
    async fn call_one_that_says(bytes: &'static [u8], scheme: &str) -> ClientError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = Remote::parse(&format!("{scheme}://{}", listener.local_addr().unwrap()), None).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut vec![0; 65_536]).await.unwrap() > 0, "the client speaks first");
            stream.write_all(bytes).await.unwrap();
        });
        let patience = Duration::from_secs(10);
        call(&remote, Method::GET, "/", HeaderMap::new(), Bytes::new(), patience).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_server_that_speaks_something_else_is_named() {
        let http_for_https = call_one_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n", "https").await;
        assert!(matches!(http_for_https, ClientError::Broken(BrokenOff::NotTls)), "{http_for_https:?}");
        let mail_for_http = call_one_that_says(b"220 mail.example ESMTP\r\n", "http").await;
        assert!(matches!(mail_for_http, ClientError::Broken(BrokenOff::NotHttp)), "{mail_for_http:?}");
        let cut_off = call_one_that_says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "http").await;
        assert!(matches!(cut_off, ClientError::Broken(BrokenOff::Other(_))), "{cut_off:?}");
    }
}
