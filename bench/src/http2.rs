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
    task: JoinHandle<()>,
}

impl Http2 {
    /// Starts a receiver on loopback.
    ///
    /// # Errors
    /// The listener cannot be opened, or the certificate cannot be used.
    pub async fn start(certificates: &Certificates, act: Act) -> anyhow::Result<Self> {
        let acceptor = certificates.acceptor("h2")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (act, acceptor) = (act.clone(), acceptor.clone());
                tokio::spawn(async move {
                    // A client that gives up is expected here.
                    perform(stream, acceptor, act).await.ok();
                });
            }
        });
        Ok(Self { address, connections, task })
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn perform(stream: TcpStream, acceptor: TlsAcceptor, act: Act) -> anyhow::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    match act {
        Act::CloseAtOnce => return Ok(()),
        Act::Greet(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            return drain(stream).await;
        }
        Act::DripHead => return drip_head(stream).await,
        _ => {}
    }
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
            let mut response = head(200)?;
            for n in 0..2_000 {
                let name = http::HeaderName::from_bytes(format!("x-{n}").as_bytes())?;
                response.headers_mut().insert(name, http::HeaderValue::from_static("0123456789abcdef"));
            }
            answer.send_response(response, true)?;
        }
        _ => std::future::pending::<()>().await,
    }
    Ok(())
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

async fn drain(mut stream: TlsStream<TcpStream>) -> anyhow::Result<()> {
    let mut chunk = [0; 4096];
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}
