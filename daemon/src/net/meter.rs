//! Bounds what a receiver may send for one request, on the wire and before anything reads it: frames, interim heads
//! (1xx), headers, chunk extensions and trailers all count. Without this bound, a receiver could keep one of our cores
//! busy for as long as an attempt lasts.
//!
//! A connection has an allowance, to which each request adds. When the bytes are used up, the connection fails. When
//! many small pieces came, it is read less often, so that the pieces gather in the kernel: this delays a receiver that
//! sends byte by byte, but refuses nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What a receiver may send for one request: a head of the largest size (64 KiB), the part of the body that is read
/// (64 KiB), and what the receiver has sent before it learns that we want no more (64 KiB). Interim heads and the framing
/// have the room that an answer of usual size leaves.
const ANSWER_BYTES: u64 = 192 * 1024;
/// What it may send while no request is under way: the TLS handshake, or frames that keep an HTTP/2 connection alive.
const IDLE_BYTES: u64 = 64 * 1024;
/// How many heads it may send over HTTP/2, for one request and while no request is under way. The codes of RFC 7541 can
/// make a head of thousands of headers out of few bytes, so heads are counted too.
const HEADS: u64 = 8;
/// A piece is small below this size. A receiver that fills its packets sends none.
const SMALL_PIECE: usize = 256;
/// How many small pieces are read at once for each request, and how many while no request is under way.
const SMALL_PIECES: u64 = 32;
/// When no more small pieces are allowed, this time passes between two reads. So an attempt of 15 s has at most 150 more.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// Over HTTP/2, a receiver tells us with small frames that it takes more of our body. For each of these many bytes that
/// we send, it may send one more small piece of `BYTES_PER_UNIT` bytes.
const SENT_UNIT: u64 = 2 * 1024;
const BYTES_PER_UNIT: u64 = 64;

/// The reason of a read that fails because the receiver has sent too much.
#[derive(Debug, thiserror::Error)]
#[error(
    "the receiver sent too much: {} KiB and {HEADS} heads are allowed for one request, and {} KiB for TLS",
    ANSWER_BYTES / 1024,
    IDLE_BYTES / 1024
)]
pub(crate) struct Flooded;

/// The allowance of one connection.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<Allowance>);

#[derive(Debug, Clone, Copy)]
struct Allowance {
    bytes: u64,
    small_pieces: u64,
    heads: u64,
    /// Requests under way.
    requests: u64,
    /// Bytes that we sent and that have not made a whole unit yet.
    sent: u64,
    flooded: bool,
}

impl Allowance {
    fn new() -> Self {
        Self { bytes: IDLE_BYTES, small_pieces: SMALL_PIECES, heads: HEADS, requests: 0, sent: 0, flooded: false }
    }

    fn begin(&mut self) {
        self.requests = self.requests.saturating_add(1);
        self.bytes = self.bytes.saturating_add(ANSWER_BYTES);
        self.small_pieces = self.small_pieces.saturating_add(SMALL_PIECES);
        self.heads = self.heads.saturating_add(HEADS);
    }

    /// What a request did not use is taken back, so that a connection can't save it up for a flood.
    fn end(&mut self) {
        self.requests = self.requests.saturating_sub(1);
        let most = |each: u64, idle: u64| each.saturating_mul(self.requests).saturating_add(idle);
        self.bytes = self.bytes.min(most(ANSWER_BYTES, IDLE_BYTES));
        self.small_pieces = self.small_pieces.min(most(SMALL_PIECES, SMALL_PIECES));
        self.heads = self.heads.min(most(HEADS, HEADS));
    }

    fn sent(&mut self, count: u64) {
        let sent = self.sent.saturating_add(count);
        let units = sent / SENT_UNIT;
        self.sent = sent % SENT_UNIT;
        self.bytes = self.bytes.saturating_add(units.saturating_mul(BYTES_PER_UNIT));
        self.small_pieces = self.small_pieces.saturating_add(units);
    }

    /// Whether the next read must wait.
    fn received(&mut self, count: usize) -> bool {
        self.bytes = self.bytes.saturating_sub(count as u64);
        self.flooded |= self.bytes == 0;
        if count >= SMALL_PIECE {
            return false;
        }
        let must_wait = self.small_pieces == 0;
        self.small_pieces = self.small_pieces.saturating_sub(1);
        must_wait
    }
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Allowance::new()))
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the receiver has sent too much.
    pub(crate) fn is_flooded(&self) -> bool {
        self.allowance().flooded
    }

    /// So many heads came over HTTP/2.
    pub(crate) fn heads(&self, count: u64) {
        let mut allowance = self.allowance();
        allowance.heads = allowance.heads.saturating_sub(count);
        allowance.flooded |= allowance.heads == 0;
    }

    /// Adds a request's allowance, which ends with the returned value.
    pub(crate) fn request(self: &Arc<Self>) -> MeteredRequest {
        self.allowance().begin();
        MeteredRequest(Arc::clone(self))
    }
}

/// A request under way.
pub(crate) struct MeteredRequest(Arc<Meter>);

impl Drop for MeteredRequest {
    fn drop(&mut self) {
        self.0.allowance().end();
    }
}

/// A stream that is read as far as its meter allows.
pub(crate) struct MeteredStream<S> {
    stream: S,
    meter: Arc<Meter>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> MeteredStream<S> {
    pub(crate) fn new(stream: S, meter: Arc<Meter>) -> Self {
        Self { stream, meter, pause: None }
    }

    fn note_sent(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = result {
            self.meter.allowance().sent(*count as u64);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.meter.is_flooded() {
            return Poll::Ready(Err(io::Error::other(Flooded)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let count = buffer.filled().len().saturating_sub(before);
        if count > 0 && self.meter.allowance().received(count) {
            self.pause = Some(Box::pin(tokio::time::sleep(READ_PAUSE)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_sent(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note_sent(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
