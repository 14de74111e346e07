//! A pace for refusals: so many a second for everybody together, so that a crowd of them leaves the machine to others.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::server::Activity;

/// However many wait, nobody waits longer.
const LONGEST: Duration = Duration::from_secs(2);

/// Reading and verifying so many bytes costs about as much as a refusal.
const AS_MUCH: usize = 16 * 1024;
/// So long a crowd is reckoned with after the last refusal that waited.
const CROWDED: Duration = Duration::from_secs(1);
/// How long large work rests in a crowd.
const REST: Duration = Duration::from_millis(1);

/// Marks a response that is a refusal, among its extensions: with how many bytes of a body were read for it.
#[derive(Debug, Clone, Copy)]
pub struct Refused(pub usize);

/// When refusals may go out. Nothing is saved up: after a rest the first goes at once, the second waits.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: Option<Instant>,
    /// When the last refusal had to wait.
    waited: Option<Instant>,
}

impl Pace {
    /// So many a second, one at the least.
    #[must_use]
    pub fn new(a_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / a_second.max(1), queue: Mutex::default() }
    }

    /// When the next refusal may go out; whoever asks has taken that place. Those behind it pay for what was read.
    pub(crate) fn take(&self, now: Instant, refused: Refused) -> Instant {
        let mut queue = self.queue();
        let due = queue.next.map_or(now, |next| next.max(now));
        if due > now {
            queue.waited = Some(now);
        }
        if due > now + LONGEST {
            return now + LONGEST;
        }
        let places = u32::try_from(1 + refused.0 / AS_MUCH).unwrap_or(u32::MAX);
        queue.next = Some(due + self.every.saturating_mul(places));
        due
    }

    /// What takes long asks for this now and then, so that nobody waits behind it: others have their turn, and in a
    /// crowd the processor is theirs for a moment.
    pub(crate) async fn rest(&self) {
        if self.is_crowded(Instant::now()) {
            tokio::time::sleep(REST).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    fn is_crowded(&self, now: Instant) -> bool {
        self.queue().waited.is_some_and(|waited| now.saturating_duration_since(waited) < CROWDED)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of HTTP/1.1 on which an answer that belongs to no request keeps the pace: it is the library's refusal of a
/// head.
pub(crate) struct Paced<S> {
    stream: S,
    activity: Arc<Activity>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, waiting: None }
    }

    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() && !self.activity.owes() {
            // The rest of it goes out behind its begin.
            self.activity.owe();
            self.waiting = self.activity.refuse(Refused(0)).map(|due| Box::pin(sleep_until(due)));
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pace(cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.settle();
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
    use super::*;

    #[test]
    fn refusals_keep_their_pace_and_nothing_is_saved_up() {
        let pace = Pace::new(10);
        let begin = Instant::now();
        let at = |ms: u64| (pace.take(begin + Duration::from_millis(ms), Refused(0)) - begin).as_millis();
        assert_eq!([at(0), at(0), at(0), at(50)], [0, 100, 200, 300]);
        // After a rest there is one at once, and no more.
        assert_eq!([at(10_000), at(10_000), at(10_099)], [10_000, 10_100, 10_200]);
        let crowd: Vec<_> = (0..100).map(|_| at(20_000)).collect();
        assert_eq!((crowd[19], crowd[20], crowd[99]), (21_900, 22_000, 22_000), "nobody waits longer");
        // Those that found no place took none.
        assert_eq!(at(21_000), 22_100);
        // Who makes the gate read much makes others wait the longer.
        let large = pace.take(begin + Duration::from_secs(30), Refused(5 * AS_MUCH));
        assert_eq!(((large - begin).as_millis(), at(30_000), at(30_000)), (30_000, 30_600, 30_700));
    }

    #[test]
    fn a_crowd_is_there_while_refusals_wait_and_a_moment_longer() {
        let pace = Pace::new(10);
        let now = Instant::now();
        pace.take(now, Refused(0));
        assert!(!pace.is_crowded(now), "one refusal is no crowd");
        pace.take(now, Refused(0));
        assert!(pace.is_crowded(now) && pace.is_crowded(now + CROWDED / 2));
        assert!(!pace.is_crowded(now + CROWDED), "they have gone");
    }
}
