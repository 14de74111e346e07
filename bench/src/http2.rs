//! Receivers that choose HTTP/2 and then misbehave in one frame or another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::Certificates;

/// What a receiver does with each request or with the connection.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers with this status and nothing else.
    Status(u16),
    /// Answers 200 with a body without an end.
    EndlessBody,
    /// Answers 200 with a body of one byte per second.
    DripBody,
    /// Never answers.
    Silence,
    /// Resets the stream.
    Reset(Reason),
    /// Ends the connection with an error while the request is open.
    GoAway,
    /// Reads the request's head, sends these frames, and then the second ones again and again.
    Frames(Vec<u8>, Vec<u8>),
    /// Reads the request's head, sends these frames and closes the connection.
    FramesThenClose(Vec<u8>),
    /// Also speaks HTTP/1.1, and answers 204 over it. Over HTTP/2, it reads the request's head and sends these frames.
    Http1Required(Vec<u8>),
    /// Answers 200 with so many headers, each with a value of so many bytes.
    Headers(usize, usize),
    /// Acts in the first way on the first connection, and in the second way on all others.
    First(Box<Act>, Box<Act>),
    /// Closes the connection while the request is open.
    Close,
    /// Closes as soon as the handshake is done.
    CloseAtOnce,
    /// Answers with more headers than any client accepts.
    EndlessHead,
    /// Sends these bytes instead of frames.
    Greet(Vec<u8>),
    /// Begins the answer's head and sends it one byte per second.
    DripHead,
    /// Handles one request at a time and needs 400 ms for each.
    OneAtATime,
    /// Allows no byte of a body to be sent, and answers 200 at once.
    AnswerUnread,
    /// Allows the whole body to be sent, reads the request's head, and then reads nothing more.
    Deaf,
}

/// A running receiver. It ends when this value is dropped.
pub struct Http2 {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicU64>,
    /// Requests so far.
    pub requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Http2 {
    /// Starts a receiver on loopback.
    ///
    /// # Errors
    /// The listener cannot be opened, or the certificate cannot be used.
    pub async fn start(certificates: &Certificates, act: Act) -> anyhow::Result<Self> {
        let acceptor = match act {
            Act::Http1Required(_) => certificates.acceptor_of(&["h2", "http/1.1"])?,
            _ => certificates.acceptor("h2")?,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let requests = Arc::new(AtomicU64::new(0));
        let (count, counted) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let before = count.fetch_add(1, Ordering::SeqCst);
                let act = match &act {
                    Act::First(first, _) if before == 0 => (**first).clone(),
                    Act::First(_, others) => (**others).clone(),
                    act => act.clone(),
                };
                let (acceptor, requests) = (acceptor.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    // A client that gives up is expected here.
                    perform(stream, acceptor, act, &requests).await.ok();
                });
            }
        });
        Ok(Self { address, connections, requests, task })
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn perform(stream: TcpStream, acceptor: TlsAcceptor, act: Act, requests: &AtomicU64) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    match act {
        Act::CloseAtOnce => Ok(()),
        Act::Http1Required(_) if stream.get_ref().1.alpn_protocol() != Some(b"h2") => answer_http1(stream).await,
        Act::Http1Required(frames) => send_by_hand(stream, Act::FramesThenClose(frames), requests).await,
        Act::Greet(_) | Act::DripHead | Act::Frames(..) | Act::FramesThenClose(_) => {
            send_by_hand(stream, act, requests).await
        }
        act => serve(stream, act, requests).await,
    }
}

/// Reads a request and answers 204.
async fn answer_http1(mut stream: TlsStream<TcpStream>) -> anyhow::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "the client left");
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    drain(stream).await
}

/// The acts for which a library would be too polite.
async fn send_by_hand(mut stream: TlsStream<TcpStream>, act: Act, requests: &AtomicU64) -> anyhow::Result<()> {
    match act {
        Act::Greet(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            drain(stream).await
        }
        Act::Frames(first, again) => {
            read_head(&mut stream).await?;
            requests.fetch_add(1, Ordering::SeqCst);
            send_frames(stream, &first, &again).await
        }
        Act::FramesThenClose(frames) => {
            read_head(&mut stream).await?;
            requests.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&frames).await?;
            stream.shutdown().await?;
            // If bytes stayed unread, the system would reset the connection, and the client would lose our frames.
            drain(stream).await
        }
        _ => drip_head(stream).await,
    }
}

async fn serve(stream: TlsStream<TcpStream>, act: Act, requests: &AtomicU64) -> anyhow::Result<()> {
    let mut server = h2::server::Builder::new();
    match act {
        Act::OneAtATime => server.max_concurrent_streams(1),
        Act::AnswerUnread => server.initial_window_size(0),
        Act::Deaf => server.initial_window_size(1 << 26).initial_connection_window_size(1 << 26),
        _ => &mut server,
    };
    let mut connection: Connection<TlsStream<TcpStream>, Bytes> = server.handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, answer) = request?;
        requests.fetch_add(1, Ordering::SeqCst);
        match act {
            Act::Close => return Ok(()),
            Act::Deaf => {
                std::future::pending::<()>().await;
                drop((request, answer));
            }
            Act::AnswerUnread => {
                let mut answer = answer;
                answer.send_response(Response::new(()), true)?;
                // The stream stays half open, so that the client never learns that the body is not wanted.
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop((request, answer));
                });
            }
            Act::GoAway => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            _ => {
                let act = act.clone();
                tokio::spawn(async move {
                    answer_one(request, answer, act).await.ok();
                });
            }
        }
    }
    Ok(())
}

async fn answer_one(request: Request<RecvStream>, mut answer: SendResponse<Bytes>, act: Act) -> anyhow::Result<()> {
    let mut body = request.into_body();
    while let Some(chunk) = body.data().await {
        let length = chunk?.len();
        body.flow_control().release_capacity(length)?;
    }
    let head = |status: u16| -> anyhow::Result<Response<()>> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status)?;
        Ok(response)
    };
    match act {
        Act::Status(status) => {
            answer.send_response(head(status)?, true)?;
        }
        Act::OneAtATime => {
            tokio::time::sleep(Duration::from_millis(400)).await;
            answer.send_response(head(204)?, true)?;
        }
        Act::EndlessBody => {
            let mut body = answer.send_response(head(200)?, false)?;
            loop {
                body.reserve_capacity(16 * 1024);
                if std::future::poll_fn(|context| body.poll_capacity(context)).await.is_none() {
                    return Ok(());
                }
                body.send_data(Bytes::from(vec![b'x'; body.capacity().min(16 * 1024)]), false)?;
            }
        }
        Act::DripBody => {
            let mut body = answer.send_response(head(200)?, false)?;
            loop {
                body.send_data(Bytes::from_static(b"x"), false)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Act::Reset(reason) => answer.send_reset(reason),
        Act::EndlessHead => {
            answer.send_response(with_headers(head(200)?, 4_000, 16)?, true)?;
        }
        Act::Headers(count, size) => {
            answer.send_response(with_headers(head(200)?, count, size)?, true)?;
        }
        _ => std::future::pending::<()>().await,
    }
    Ok(())
}

fn with_headers(mut response: Response<()>, count: usize, size: usize) -> anyhow::Result<Response<()>> {
    for n in 0..count {
        let name = http::HeaderName::from_bytes(format!("x-{n}").as_bytes())?;
        response.headers_mut().insert(name, http::HeaderValue::from_str(&"v".repeat(size))?);
    }
    Ok(response)
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
///
/// # Panics
/// The payload is longer than 16 MiB.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The frame with which a receiver ends a connection: it has handled no stream above `last`.
#[must_use]
pub fn go_away(last: u32, reason: Reason, debug: &[u8]) -> Vec<u8> {
    frame(7, 0, 0, &[&last.to_be_bytes()[..], &u32::from(reason).to_be_bytes(), debug].concat())
}

/// A frame with the whole head of the answer on a stream.
#[must_use]
pub fn head(stream: u32, end: bool, block: &[u8]) -> Vec<u8> {
    frame(1, 4 | u8::from(end), stream, block)
}

/// Sends SETTINGS and reads until the head of the first request has come.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    stream.write_all(&frame(4, 0, 0, &[])).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await?;
    loop {
        let mut begin = [0; 9];
        stream.read_exact(&mut begin).await?;
        let length = u32::from_be_bytes([0, begin[0], begin[1], begin[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if begin[3] == 1 {
            return Ok(());
        }
    }
}

async fn send_frames(stream: TlsStream<TcpStream>, first: &[u8], again: &[u8]) -> anyhow::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    // What the client says no longer matters, but it must be able to say it.
    let reading = tokio::spawn(drain(read));
    let writing = async {
        write.write_all(first).await?;
        write.flush().await?;
        while !again.is_empty() {
            write.write_all(again).await?;
            write.flush().await?;
        }
        anyhow::Ok(())
    };
    writing.await?;
    reading.await?
}

/// Sends SETTINGS, then a HEADERS frame for the first stream, one byte per second.
async fn drip_head(mut stream: TlsStream<TcpStream>) -> anyhow::Result<()> {
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    stream.flush().await?;
    let mut chunk = [0; 4096];
    // Without the client's first bytes there is nobody to answer. What they say does not matter.
    if stream.read(&mut chunk).await? == 0 {
        return Ok(());
    }
    for byte in [0, 0, 200, 1, 4, 0, 0, 0, 1].into_iter().chain(std::iter::repeat_n(0x88, 200)) {
        stream.write_all(&[byte]).await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn drain(mut stream: impl tokio::io::AsyncRead + Unpin) -> anyhow::Result<()> {
    let mut chunk = [0; 4096];
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}
