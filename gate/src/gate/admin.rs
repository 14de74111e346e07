//! Health and metrics, on a listener of their own. Callers of the gate never see them.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use scale_callback_serve::server::{Limits, Listener, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::Metrics;
use super::response::plain;

/// Serves until `drained`. From `stopping` on the gate says that it is not ready.
pub(super) async fn run(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
    drained: watch::Receiver<bool>,
) {
    let limits = Limits { connections: 64, drain: std::time::Duration::from_secs(1), ..Limits::default() };
    let make = move |_| {
        let (metrics, stop) = (Arc::clone(&metrics), stopping.clone());
        service_fn(move |request: Request<Incoming>| {
            let answer = answer(&metrics, &request, *stop.borrow());
            async move { Ok::<_, Infallible>(answer) }
        })
    };
    serve(Listener::Tcp(listener), limits, make, drained).await;
}

fn answer(metrics: &Metrics, request: &Request<Incoming>, stopping: bool) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    match request.uri().path() {
        "/livez" => plain(StatusCode::OK),
        "/readyz" => plain(if stopping { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }),
        "/metrics" => {
            let mut response = Response::new(Full::new(Bytes::from(metrics.page())));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        _ => plain(StatusCode::NOT_FOUND),
    }
}
