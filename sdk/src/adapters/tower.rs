//! A layer for any `tower` service: what does not verify never reaches it.

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

use super::{BODY_LIMIT, ProvenCallback};
use crate::Verifier;

/// Verifies every request before the service behind it, which finds a [`ProvenCallback`] among the request's
/// extensions and the whole body as its body.
///
/// Rejections have no body: 401, 413, or 400 where the body broke off.
#[derive(Debug)]
pub struct VerifyLayer<B> {
    verifier: Arc<Verifier>,
    limit: usize,
    body: PhantomData<fn() -> B>,
}

impl<B> VerifyLayer<B> {
    /// A layer with the usual limit of 12 MiB a body.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier, limit: BODY_LIMIT, body: PhantomData }
    }

    /// Another limit, in bytes.
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
        // The one that was polled ready is used; its copy waits for the next.
        let copy = self.inner.clone();
        let mut inner = core::mem::replace(&mut self.inner, copy);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            match ProvenCallback::read(&head.headers, body, &layer.verifier, layer.limit).await {
                Ok(proven) => {
                    let body = B::from(proven.body().clone());
                    head.extensions.insert(proven);
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
