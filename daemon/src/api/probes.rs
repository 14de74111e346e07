//! The ops listener: whether the daemon is alive, whether it can work, and its metrics. Nobody has to authenticate here.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::watch;

use crate::base::metrics::Metrics;
use crate::ops::Ops;
use crate::ops::status::Readiness;

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn router(ops: Ops) -> Router {
    Router::new()
        // Touches nothing: it only shows that the program answers.
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here\n") })
        .layer(map_response(last_of_its_connection))
        .with_state(ops)
}

/// Closes the connection after the answer, so that no program keeps a place between two probes.
async fn last_of_its_connection(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What is served while the store is away: the same paths, and why the daemon is not ready.
pub(super) fn waiting(trouble: watch::Receiver<String>, metrics: Arc<Metrics>) -> Router {
    let readyz = async move || {
        let troubles = vec![trouble.borrow().clone()];
        let readiness = Readiness {
            ready: false,
            troubles,
            kafka_reachable: None,
            intake_held: false,
            partitions: 0,
            store_up: false,
        };
        ready_or_not(&readiness, None)
    };
    let page = async move || ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.encode(false)).into_response();
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(page))
        .layer(map_response(last_of_its_connection))
}

async fn readyz(State(ops): State<Ops>) -> Response {
    ready_or_not(&ops.readiness(), ops.note())
}

fn ready_or_not(readiness: &Readiness, note: Option<String>) -> Response {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": readiness.ready,
        "troubles": readiness.troubles,
        "note": note,
        "intake": { "held": readiness.intake_held },
        "kafka": { "reachable": readiness.kafka_reachable, "partitions": readiness.partitions },
        "store": { "answers": readiness.store_up },
    });
    (status, axum::Json(body)).into_response()
}

async fn metrics(State(ops): State<Ops>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], ops.metrics_page().await).into_response()
}
