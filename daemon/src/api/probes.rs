//! The ops listener: whether the daemon is alive, whether it can work, and its metrics. Nobody has to authenticate here.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::ops::Ops;

pub(super) fn router(ops: Ops) -> Router {
    Router::new()
        // Touches nothing: it only shows that the program answers.
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here\n") })
        .with_state(ops)
}

async fn readyz(State(ops): State<Ops>) -> Response {
    let readiness = ops.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": readiness.ready,
        "troubles": readiness.troubles,
        "intake": { "held": readiness.intake_held },
        "kafka": { "reachable": readiness.kafka_reachable, "partitions": readiness.partitions },
        "store": { "answers": readiness.store_up },
    });
    (status, axum::Json(body)).into_response()
}

async fn metrics(State(ops): State<Ops>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], ops.metrics_page().await).into_response()
}
