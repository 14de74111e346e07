//! A future that always comes to its end: dropped before its end, it goes on as a task of its own. Its output is lost then.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

pub(super) struct DetachOnDrop<F: Future<Output: Send> + Send + 'static> {
    future: Option<Pin<Box<F>>>,
    /// The future is being polled now, or its poll panicked.
    in_poll: bool,
}

impl<F: Future<Output: Send> + Send + 'static> DetachOnDrop<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future: Some(Box::pin(future)), in_poll: false }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for DetachOnDrop<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.in_poll = true;
        let Some(future) = &mut self.future else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.future = None;
        }
        self.in_poll = false;
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for DetachOnDrop<F> {
    fn drop(&mut self) {
        // A future whose poll panicked must not be polled again.
        if let Some(future) = self.future.take()
            && !self.in_poll
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_future_that_is_dropped_before_its_end_goes_on() {
        let (begin, began) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut future = DetachOnDrop::new(async move {
            began.await.expect("it is told to begin");
            end.send("done").expect("somebody waits for it");
        });
        let first_poll = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut future).poll(cx).is_pending()));
        assert!(first_poll.await);
        drop(future);
        begin.send(()).expect("it still waits");
        assert_eq!(ended.await, Ok("done"));
    }
}
