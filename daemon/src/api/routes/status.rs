//! How the daemon stands, and the little of it that can be turned.

use axum::extract::State;
use axum::{Extension, Json};

use super::super::access::Asker;
use super::super::extract::{Answer, Body, Nothing, Query};
use super::super::shapes::{Acceptance, InstanceShape, LogLevelShape, OffsetsShape, Page, StartedShape, StatusShape};
use crate::ops::Ops;

/// How the daemon stands.
///
/// Ready or why not, how far behind, what waits, which endpoints fail. Counts are of this run.
#[utoipa::path(get, path = "/status", tag = "status", security(("token" = ["read"])),
    responses((status = 200, body = StatusShape)))]
pub(super) async fn status(State(ops): State<Ops>, Query(_): Query<Nothing>) -> Answer<StatusShape> {
    Ok(Json(StatusShape::new(ops.status().await?)))
}

/// The last runs of a daemon on this store.
#[utoipa::path(get, path = "/instances", tag = "status", security(("token" = ["read"])),
    responses((status = 200, body = Page<InstanceShape>)))]
pub(super) async fn instances(State(ops): State<Ops>, Query(_): Query<Nothing>) -> Answer<Page<InstanceShape>> {
    Ok(Json(Page::whole(ops.instances().await?.iter().map(InstanceShape::new).collect())))
}

/// Every partition: its watermark, and how far behind it is.
#[utoipa::path(get, path = "/offsets", tag = "offsets", security(("token" = ["read"])),
    responses((status = 200, body = Page<OffsetsShape>)))]
pub(super) async fn offsets(State(ops): State<Ops>, Query(_): Query<Nothing>) -> Answer<Page<OffsetsShape>> {
    Ok(Json(Page::whole(ops.offsets().await?.iter().map(OffsetsShape::new).collect())))
}

/// Start the partitions that wait for it.
///
/// A partition waits when Kafka's offsets speak of another store. Errors: conflict when none waits, not_ready when the
/// Kafka consumer does not answer.
#[utoipa::path(post, path = "/offsets/accept", tag = "offsets", security(("token" = ["operate"])),
    request_body = Acceptance, responses((status = 200, body = StartedShape)))]
pub(super) async fn accept_offsets(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    body: Body<Acceptance>,
) -> Answer<StartedShape> {
    let started = ops.accept_offsets(&caller.caller, &body.value.from).await?;
    Ok(Json(StartedShape { started }))
}

/// The level of the daemon's logs.
#[utoipa::path(get, path = "/log_level", tag = "status", security(("token" = ["read"])),
    responses((status = 200, body = LogLevelShape)))]
pub(super) async fn log_level(State(ops): State<Ops>, Query(_): Query<Nothing>) -> Answer<LogLevelShape> {
    Ok(Json(LogLevelShape { level: ops.log_level.current() }))
}

/// Turn the level of the daemon's logs, until the next restart, or a reload that changes it.
#[utoipa::path(put, path = "/log_level", tag = "status", security(("token" = ["operate"])),
    request_body = LogLevelShape, responses((status = 200, body = LogLevelShape)))]
pub(super) async fn set_log_level(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    body: Body<LogLevelShape>,
) -> Answer<LogLevelShape> {
    ops.set_log_level(&caller.caller, &body.value.level).await?;
    Ok(Json(LogLevelShape { level: ops.log_level.current() }))
}
