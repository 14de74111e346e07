//! A future that comes to its end, whoever waits for it: dropped before, it goes on as a task of its own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

pub(super) struct Finishing<F: Future<Output: Send> + Send + 'static> {
    future: Option<Pin<Box<F>>>,
    /// It is being polled, or its poll panicked.
    polled: bool,
}

impl<F: Future<Output: Send> + Send + 'static> Finishing<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future: Some(Box::pin(future)), polled: false }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finishing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polled = true;
        let Some(future) = &mut self.future else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.future = None;
        }
        self.polled = false;
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Finishing<F> {
    fn drop(&mut self) {
        // One whose poll panicked is not polled again.
        if let Some(future) = self.future.take()
            && !self.polled
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(future);
        }
    }
}
