//! A layer for any `tower` service. A request that does not verify never reaches the service.

use core::convert::Infallible;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{BODY_LIMIT, VerifiedCallback};
use crate::Verifier;

/// Verifies every request and passes it to the inner service. The service finds a [`VerifiedCallback`] in the request's
/// extensions, and the request's body is the whole body that was verified.
///
/// A rejected request gets an answer without a body: 401, or 413 if the body is too large, or 400 if it ended early.
#[derive(Debug)]
pub struct VerifyLayer<B> {
    verifier: Arc<Verifier>,
    limit: usize,
    body: PhantomData<fn() -> B>,
}

impl<B> VerifyLayer<B> {
    /// Makes a layer that reads at most 12 MiB of body.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier, limit: BODY_LIMIT, body: PhantomData }
    }

    /// Sets another limit for the body, in bytes.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl<B> Clone for VerifyLayer<B> {
    fn clone(&self) -> Self {
        Self { verifier: Arc::clone(&self.verifier), limit: self.limit, body: PhantomData }
    }
}

impl<S, B> Layer<S> for VerifyLayer<B> {
    type Service = Verify<S, B>;

    fn layer(&self, inner: S) -> Self::Service {
        Verify { inner, layer: self.clone() }
    }
}

/// The service that [`VerifyLayer`] makes.
#[derive(Debug)]
pub struct Verify<S, B> {
    inner: S,
    layer: VerifyLayer<B>,
}

impl<S: Clone, B> Clone for Verify<S, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, B, In, Out> Service<Request<In>> for Verify<S, B>
where
    S: Service<Request<B>, Response = Response<Out>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    In: Body + Send + 'static,
    In::Data: Send,
    In::Error: Into<Box<dyn core::error::Error + Send + Sync>>,
    B: From<Bytes>,
    Out: Default,
{
    type Response = Response<Out>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        // Use the service that was polled ready; a clone takes its place for the next request.
        let copy = self.inner.clone();
        let mut inner = core::mem::replace(&mut self.inner, copy);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            match VerifiedCallback::read(&head.headers, body, &layer.verifier, layer.limit).await {
                Ok(callback) => {
                    let body = B::from(callback.body().clone());
                    head.extensions.insert(callback);
                    inner.call(Request::from_parts(head, body)).await
                }
                Err(rejection) => {
                    let mut response = Response::new(Out::default());
                    *response.status_mut() = rejection.status();
                    Ok(response)
                }
            }
        })
    }
}
