//! Pauses of all deliveries, of a team, and of an endpoint.

use axum::Json;

use super::super::extract::{Answer, Body, Nothing, Place, Query};
use super::super::shapes::{DeliveryShape, PauseRequest, PauseShape, ResumedShape};
use crate::ops::Session;
use crate::ops::pauses::is_delivering;

/// Whether callbacks are delivered, and what is paused.
#[utoipa::path(get, path = "/delivery", tag = "delivery", responses((status = 200, body = DeliveryShape)))]
pub(super) async fn delivery(session: Session, Query(_): Query<Nothing>) -> Answer<DeliveryShape> {
    Ok(Json(DeliveryShape::new(&session.delivery().await?)))
}

/// Pause all deliveries.
///
/// Attempts that are under way end, and no other begins, on any instance, within about a second. Events stay in Kafka. Nothing is
/// given up for the time of the pause: what is due gets its attempt after it. What is paused already stays as it is.
#[utoipa::path(post, path = "/delivery/pause", tag = "delivery", request_body = PauseRequest,
    responses((status = 200, body = PauseShape)))]
pub(super) async fn pause_delivery(session: Session, body: Body<PauseRequest>) -> Answer<PauseShape> {
    Ok(Json(PauseShape::new(&session.pause_delivery(body.value.reason.unwrap_or_default()).await?)))
}

/// End the pause of all deliveries.
///
/// Teams and endpoints that are paused by themselves stay so. Errors: conflict if deliveries are not paused as a whole.
#[utoipa::path(post, path = "/delivery/resume", tag = "delivery", responses((status = 200, body = ResumedShape)))]
pub(super) async fn resume_delivery(session: Session) -> Answer<ResumedShape> {
    session.resume_delivery().await?;
    Ok(Json(ResumedShape { team_id: None, origin: None, is_delivering: true }))
}

/// Pause the deliveries of a team.
///
/// Its new callbacks wait in the store, within the budget of stored bodies, and those of other teams go on.
#[utoipa::path(post, path = "/teams/{team}/pause", tag = "delivery", request_body = PauseRequest,
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = PauseShape)))]
pub(super) async fn pause_team(
    session: Session,
    Place(team): Place<String>,
    body: Body<PauseRequest>,
) -> Answer<PauseShape> {
    Ok(Json(PauseShape::new(&session.pause_team(&team, body.value.reason.unwrap_or_default()).await?)))
}

/// End the pause of a team.
///
/// It goes on within a few seconds. Its endpoints that are paused by themselves stay so. Errors: conflict if it is not paused.
#[utoipa::path(post, path = "/teams/{team}/resume", tag = "delivery",
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = ResumedShape)))]
pub(super) async fn resume_team(session: Session, Place(team): Place<String>) -> Answer<ResumedShape> {
    session.resume_team(&team).await?;
    let is_delivering = is_delivering(&session, &team, None);
    Ok(Json(ResumedShape { team_id: Some(team), origin: None, is_delivering }))
}

/// Pause the deliveries of a team to one endpoint.
///
/// It need not have been used before. Its new callbacks wait in the store, and those of other endpoints go on.
#[utoipa::path(post, path = "/endpoints/{team}/{origin}/pause", tag = "delivery", request_body = PauseRequest,
    params(("team" = String, Path, description = "The team's id."),
           ("origin" = String, Path, description = "Scheme, host and port, percent-encoded.")),
    responses((status = 200, body = PauseShape)))]
pub(super) async fn pause_endpoint(
    session: Session,
    Place((team, origin)): Place<(String, String)>,
    body: Body<PauseRequest>,
) -> Answer<PauseShape> {
    let reason = body.value.reason.unwrap_or_default();
    Ok(Json(PauseShape::new(&session.pause_endpoint(&team, &origin, reason).await?)))
}

/// End the pause of an endpoint.
///
/// It goes on within a few seconds. Errors: conflict if the endpoint is not paused by itself.
#[utoipa::path(post, path = "/endpoints/{team}/{origin}/resume", tag = "delivery",
    params(("team" = String, Path, description = "The team's id."),
           ("origin" = String, Path, description = "Scheme, host and port, percent-encoded.")),
    responses((status = 200, body = ResumedShape)))]
pub(super) async fn resume_endpoint(
    session: Session,
    Place((team, origin)): Place<(String, String)>,
) -> Answer<ResumedShape> {
    let origin = session.resume_endpoint(&team, &origin).await?;
    let is_delivering = is_delivering(&session, &team, Some(&origin));
    Ok(Json(ResumedShape { team_id: Some(team), origin: Some(origin.to_string()), is_delivering }))
}
