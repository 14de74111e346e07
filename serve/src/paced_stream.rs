//! A stream of HTTP/1.1 on which an answer that belongs to no request keeps the pace of refusals. The HTTP library writes
//! such an answer itself when it refuses a request head. Answers of requests are never delayed here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use crate::activity::Activity;
use crate::refusal_pace::Refused;

pub(crate) struct PacedStream<S> {
    stream: S,
    activity: Arc<Activity>,
    /// Runs while a refusal waits.
    until_due: Option<Pin<Box<Sleep>>>,
}

impl<S> PacedStream<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, until_due: None }
    }

    /// Ready when the next bytes may be written.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.until_due.is_none() && !self.activity.is_answering() {
            // The rest of the refusal goes out right behind its first bytes.
            self.activity.begin_answer();
            self.until_due = self.activity.delay(Refused(0)).map(|due| Box::pin(sleep_until(due)));
        }
        if let Some(until_due) = &mut self.until_due {
            ready!(until_due.as_mut().poll(cx));
            self.until_due = None;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pace(cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pace(cx));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::activity::OpenRequest;
    use crate::refusal_pace::RefusalPace;

    #[tokio::test]
    async fn bytes_that_answer_no_request_keep_the_pace_and_answers_do_not() {
        let activity = Arc::new(Activity::new(Some(Arc::new(RefusalPace::new(10)))));
        let (near, _far) = tokio::io::duplex(1024);
        let mut stream = PacedStream::new(near, Arc::clone(&activity));
        let began = Instant::now();
        for _ in 0..3 {
            // Two writes and one flush are one refusal.
            stream.write_all(b"HTTP/1.1 400").await.unwrap();
            stream.write_all(b" Bad Request\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(200), "the second and the third waited 100 ms each");
        let request = OpenRequest::new(&activity);
        let before = activity.last_refusal();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert_eq!(activity.last_refusal(), before, "an answer asks for no place in the pace");
        drop(request);
    }
}
