//! How the daemon is doing, and the little of it that can be changed while it runs.

use axum::Json;

use super::super::extract::{Answer, Body, Nothing, Query};
use super::super::shapes::{
    Acceptance, ClockShape, InstanceShape, LogLevelShape, OffsetsShape, Page, StartedShape, StatusShape,
};
use crate::ops::{Session, required};

/// How the daemon is doing.
///
/// Whether it is ready and why not, how far it is behind, what waits, and the worst endpoints. The numbers of ended
/// callbacks and dead letters are counted since `counted_since`, over restarts.
#[utoipa::path(get, path = "/status", tag = "status", responses((status = 200, body = StatusShape)))]
pub(super) async fn status(session: Session, Query(_): Query<Nothing>) -> Answer<StatusShape> {
    Ok(Json(StatusShape::new(session.status().await?)))
}

/// The last instances of the daemon on this store, the newest first.
#[utoipa::path(get, path = "/instances", tag = "status", responses((status = 200, body = Page<InstanceShape>)))]
pub(super) async fn instances(session: Session, Query(_): Query<Nothing>) -> Answer<Page<InstanceShape>> {
    Ok(Json(Page::whole(session.instances().await?.iter().map(InstanceShape::new).collect())))
}

/// Every partition, with its watermark and how far it is behind.
#[utoipa::path(get, path = "/offsets", tag = "offsets", responses((status = 200, body = Page<OffsetsShape>)))]
pub(super) async fn offsets(session: Session, Query(_): Query<Nothing>) -> Answer<Page<OffsetsShape>> {
    Ok(Json(Page::whole(session.offsets().await?.iter().map(OffsetsShape::new).collect())))
}

/// Start the partitions that wait for an operator.
///
/// A partition waits when the offsets of its consumer group in Kafka were written by another store. Errors: conflict
/// when no partition waits, not_ready when the Kafka consumer does not answer.
#[utoipa::path(post, path = "/offsets/accept", tag = "offsets", request_body = Acceptance,
    responses((status = 200, body = StartedShape)))]
pub(super) async fn accept_offsets(session: Session, body: Body<Acceptance>) -> Answer<StartedShape> {
    let started = session.accept_offsets(required("from", &body.value.from)?).await?;
    Ok(Json(StartedShape { started }))
}

/// Accept the wall clock.
///
/// The store's clock makes no step. If the wall clock is more than 60 s away from it, no callback ends and nothing is
/// pruned until both agree again. This operation says that the wall clock is right. Errors: conflict when both agree
/// already.
#[utoipa::path(post, path = "/clock/accept", tag = "status", responses((status = 200, body = ClockShape)))]
pub(super) async fn accept_clock(session: Session, Query(_): Query<Nothing>) -> Answer<ClockShape> {
    Ok(Json(ClockShape::new(&session.accept_clock().await?)))
}

/// The level of the daemon's logs.
#[utoipa::path(get, path = "/log_level", tag = "status", responses((status = 200, body = LogLevelShape)))]
pub(super) async fn log_level(session: Session, Query(_): Query<Nothing>) -> Answer<LogLevelShape> {
    Ok(Json(LogLevelShape { level: session.log_level()? }))
}

/// Set the level of the daemon's logs.
///
/// It holds until the next restart, or until a reload of a configuration that names another level.
#[utoipa::path(put, path = "/log_level", tag = "status", request_body = LogLevelShape,
    responses((status = 200, body = LogLevelShape)))]
pub(super) async fn set_log_level(session: Session, body: Body<LogLevelShape>) -> Answer<LogLevelShape> {
    Ok(Json(LogLevelShape { level: session.set_log_level(&body.value.level).await? }))
}
