//! One connection to the receiver. It is driven by whoever waits for something on it, so it needs no task of its own, and
//! dropping it closes it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use scale_callback_serve::unix;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::at::Place;
use super::error::UpstreamError;
use super::head_bound::{Allowance, HeadBound};

/// How long a kept connection may take to say that it is ready.
const READY_TIME: Duration = Duration::from_millis(20);
/// The time for a connection to be made.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// Headers of one answer.
const HEADERS: usize = 128;
/// Bytes of the head of one answer.
const HEAD_BYTES: usize = 64 * 1024;
/// The connection's buffer: a head, and a little of what follows. With a larger one, the library would read far beyond what may
/// come before the final head.
const BUFFER: usize = HEAD_BYTES + 8 * 1024;

type Work = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// What may still come before the final head.
    allowance: Allowance,
    /// The connection's own work; `None` once the connection has ended.
    work: Work,
    /// It has brought an answer before.
    pub(super) has_served: bool,
}

impl Link {
    pub(super) async fn connect(place: &Place) -> Result<Self, UpstreamError> {
        let connecting = async {
            match place {
                Place::Tcp(host) => {
                    let stream = TcpStream::connect(host).await.map_err(|_| UpstreamError::Unreachable)?;
                    stream.set_nodelay(true).map_err(|_| UpstreamError::Unreachable)?;
                    Self::shake_hands(stream).await
                }
                Place::Unix(path) => {
                    let stream = unix::connect(path).await.map_err(|_| UpstreamError::Unreachable)?;
                    Self::shake_hands(stream).await
                }
            }
        };
        tokio::time::timeout(CONNECT_TIME, connecting).await.map_err(|_| UpstreamError::Unreachable)?
    }

    /// Answers that other programs accept are read as they are meant: a folded header becomes one line, a space before a colon
    /// does not count, and a line that is no header is left out. What decides where an answer ends is judged strictly.
    async fn shake_hands<S>(stream: S) -> Result<Self, UpstreamError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let allowance = Allowance::new();
        let io = TokioIo::new(HeadBound::new(stream, allowance.clone()));
        let shaken = http1::Builder::new()
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .max_headers(HEADERS)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER)
            .handshake(io)
            .await;
        let (sender, connection) = shaken.map_err(|_| UpstreamError::Unreachable)?;
        let work = async move {
            // Whoever waits for an answer on the connection sees how it ended.
            connection.await.ok();
        };
        Ok(Self { sender, allowance, work: Some(Box::pin(work)), has_served: false })
    }

    /// Sends a request. Gives the head of its answer, or puts the request back where none of it was sent.
    pub(super) async fn ask(
        &mut self,
        request: &mut Option<Request<Full<Bytes>>>,
    ) -> Result<Option<Response<Incoming>>, UpstreamError> {
        self.allowance.await_head();
        let asked = pin!(self.sender.try_send_request(request.take().ok_or(UpstreamError::Broken)?));
        match drive(&mut self.work, asked).await {
            Ok(response) => {
                self.allowance.head_came();
                Ok(Some(response))
            }
            Err(mut error) => {
                *request = error.take_message();
                if request.is_some() { Ok(None) } else { Err(UpstreamError::Broken) }
            }
        }
    }

    /// Waits for something that the connection's work brings about.
    pub(super) async fn wait_for<T>(&mut self, what: Pin<&mut impl Future<Output = T>>) -> T {
        drive(&mut self.work, what).await
    }

    /// Whether a kept connection can still take a request.
    pub(super) async fn is_ready(&mut self) -> bool {
        // Most are ready at once and need no timer.
        drive(&mut self.work, pin!(std::future::ready(()))).await;
        if self.sender.is_ready() {
            return true;
        }
        let ready = pin!(poll_fn(|cx| self.sender.poll_ready(cx)));
        matches!(tokio::time::timeout(READY_TIME, drive(&mut self.work, ready)).await, Ok(Ok(())))
    }

    /// Whether the last request was taken whole, so that the connection may serve again.
    pub(super) async fn may_serve_again(&mut self) -> bool {
        if !self.sender.is_ready() {
            drive(&mut self.work, pin!(std::future::ready(()))).await;
        }
        self.sender.is_ready()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.work.is_none()
    }
}

/// Polls a connection's work together with what is waited for.
async fn drive<T>(work: &mut Work, mut what: Pin<&mut impl Future<Output = T>>) -> T {
    poll_fn(|cx| {
        if work.as_mut().is_some_and(|work| work.as_mut().poll(cx).is_ready()) {
            *work = None;
        }
        what.as_mut().poll(cx)
    })
    .await
}
