//! A service whose open requests are counted, and whose refusals keep the pace. It never looks at what a request asks for
//! and never changes an answer, but for one header: a chunked request ends its connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use crate::activity::{Activity, OpenRequest};
use crate::refusal_pace::Refused;

pub(crate) struct TrackedService<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S> TrackedService<S> {
    pub(crate) fn new(service: S, activity: Arc<Activity>) -> Self {
        Self { service, activity }
    }
}

impl<S, B> Service<Request<Incoming>> for TrackedService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Answering<S::Future, B>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Only the HTTP library knows where a chunked body ends, and nothing checks the bytes behind it.
        let is_last = request.headers().contains_key(header::TRANSFER_ENCODING);
        Answering {
            answering: self.service.call(request),
            is_last,
            delayed: None,
            request: OpenRequest::new(&self.activity),
        }
    }
}

/// A refusal that waits for its turn.
struct Delayed<B> {
    until_due: Pin<Box<Sleep>>,
    response: Response<B>,
}

pin_project! {
    pub(crate) struct Answering<F, B> {
        #[pin]
        answering: F,
        // The answer ends the connection.
        is_last: bool,
        // Boxed, because few answers are delayed and every answer would carry its size.
        delayed: Option<Box<Delayed<B>>>,
        request: OpenRequest,
    }
}

impl<F: Future<Output = Result<Response<B>, Infallible>>, B> Future for Answering<F, B> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.delayed.is_none() {
            let Ok(mut response) = ready!(this.answering.poll(cx));
            if *this.is_last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let refused = response.extensions().get::<Refused>();
            let due = refused.and_then(|refused| this.request.activity().delay(*refused));
            let Some(due) = due else { return Poll::Ready(Ok(response)) };
            *this.delayed = Some(Box::new(Delayed { until_due: Box::pin(sleep_until(due)), response }));
        }
        if let Some(delayed) = this.delayed {
            ready!(delayed.until_due.as_mut().poll(cx));
        }
        match this.delayed.take() {
            Some(delayed) => Poll::Ready(Ok(delayed.response)),
            None => Poll::Pending,
        }
    }
}
