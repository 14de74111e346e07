//! A stream that records what happens on it, so that the phase of a failure is known without reading an error's text.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug, Default)]
pub(crate) struct StreamRecord {
    written: AtomicU64,
    read: AtomicU64,
    write_failed: AtomicBool,
    tls_failed: AtomicBool,
}

impl StreamRecord {
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether TLS failed. Errors of HTTP/2 do not keep this cause.
    pub(crate) fn tls_failed(&self) -> bool {
        self.tls_failed.load(Ordering::Relaxed)
    }

    pub(crate) fn write_failed(&self) -> bool {
        self.write_failed.load(Ordering::Relaxed)
    }
}

pub(crate) struct RecordedStream<S> {
    stream: S,
    record: Arc<StreamRecord>,
}

impl<S> RecordedStream<S> {
    pub(crate) fn new(stream: S, record: Arc<StreamRecord>) -> Self {
        Self { stream, record }
    }

    fn note(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(count)) => {
                self.record.written.fetch_add(*count as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => self.record.write_failed.store(true, Ordering::Relaxed),
            Poll::Pending => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &result
            && error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>())
        {
            self.record.tls_failed.store(true, Ordering::Relaxed);
        }
        let count = buffer.filled().len().saturating_sub(before);
        self.record.read.fetch_add(count as u64, Ordering::Relaxed);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(result, Poll::Ready(Err(_))) {
            self.record.write_failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
