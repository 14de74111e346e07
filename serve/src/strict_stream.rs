//! A stream that passes only strict HTTP/1.1 request heads on to the HTTP library. A head that breaks a rule reaches the
//! library as one zero byte instead: the library answers 400 and ends the connection. Bytes of the requests before that head
//! pass unchanged, and no byte behind it passes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::strict_head::HeadCheck;

/// No head and no method holds this byte, so the library refuses it with 400.
const REFUSED: &[u8] = &[0];

pub(crate) struct StrictStream<S> {
    stream: S,
    check: HeadCheck,
    /// The library has not read [`REFUSED`] yet.
    refusal_due: bool,
}

impl<S> StrictStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, check: HeadCheck::default(), refusal_due: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.refusal_due) {
            buf.put_slice(REFUSED);
            return Poll::Ready(Ok(()));
        }
        if self.check.is_refused() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Err(good) = self.check.look(&buf.filled()[before..]) {
            // The bytes before the broken head belong to another request.
            buf.set_filled(before + good);
            self.refusal_due = good > 0;
            if good == 0 {
                buf.put_slice(REFUSED);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_broken_head_becomes_one_zero_and_nothing_behind_it_passes() {
        let good = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na";
        let broken = format!("{good}POST / HTTP/1.1\nHost: b\n\n{good}");
        // The second piece arrives after the head was refused.
        let mut stream = StrictStream::new(broken.as_bytes().chain(good.as_bytes()));
        let (mut read, mut piece) = (Vec::new(), [0; 1024]);
        while let count @ 1.. = stream.read(&mut piece).await.unwrap() {
            read.extend_from_slice(&piece[..count]);
        }
        assert_eq!(read, [good.as_bytes(), REFUSED].concat());
    }
}
