//! A plain HTTP/1.1 client for tools: one request a connection, bounded in time and size.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use crate::body;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Where to.
#[derive(Debug, Clone)]
pub enum Remote {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
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
        Remote::Unix(_) => "localhost".to_owned(),
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(broken)?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(http::header::HOST, host.parse().map_err(broken)?);
    match remote {
        Remote::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(ClientError::Unreachable)?;
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
    ClientError::Broken(error.to_string())
}
