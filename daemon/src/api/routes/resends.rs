//! Jobs that send many callbacks again.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Body, Nothing, Place, Query, time_if_given};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::{NewResendShape, Page, ResendPreview, ResendResume, ResendShape};
use super::callbacks::span;
use crate::ops::resends::NewResend;
use crate::ops::{Session, named};
use crate::store::reads::CallbackFilter;
use crate::store::resends::ResendForm;

/// A job sends at most so many callbacks again, unless its request says otherwise.
const AT_MOST: u64 = 100;

impl NewResendShape {
    fn asked(self) -> Result<NewResend, Problem> {
        let filter = CallbackFilter {
            team: self.team,
            teams: None,
            task: self.task,
            queues: None,
            state: named("state", self.state.as_deref())?,
            undelivered: false,
            reason: named("reason", self.reason.as_deref())?,
            outcome: named("outcome", self.outcome.as_deref())?,
            status: self.status,
            failed: span(self.failed_since.as_deref(), self.failed_until.as_deref())?,
            mode: named("mode", self.mode.as_deref())?,
            since: time_if_given(self.since.as_deref())?,
            until: time_if_given(self.until.as_deref())?,
        };
        let form =
            ResendForm { to_default: self.to_default, allow_new_origin: self.allow_new_origin, new_id: self.new_id };
        let at_most = self.at_most.unwrap_or(AT_MOST);
        Ok(NewResend { filter, endpoint: self.endpoint, form, rate: self.rate, at_most })
    }
}

/// Send many callbacks again that have ended.
///
/// The job is kept in the store and survives restarts. It opens a round for each callback that matches and ended before the job
/// began, newest event first, as resend does for one callback.
/// Errors: too_many_rows if more than at_most callbacks match; conflict if there are as many jobs as there may be; not_found for a
/// team that does not exist; invalid_request for a filter that nothing can match, and for pending callbacks, which are retried.
#[utoipa::path(post, path = "/resends", tag = "resends", request_body = NewResendShape,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key creates nothing.")),
    responses((status = 201, body = ResendShape)))]
pub(super) async fn create_resend(
    session: Session,
    body: Body<NewResendShape>,
) -> Result<(StatusCode, Json<ResendShape>), Problem> {
    let row = session.create_resend(body.value.asked()?, body.once).await?.into_inner();
    Ok((StatusCode::CREATED, Json(ResendShape::new(&row))))
}

/// Count the callbacks that would be sent again.
///
/// It takes the request of create_resend, and changes nothing. Only the filter counts.
/// Errors: those of create_resend, but not too_many_rows.
#[utoipa::path(post, path = "/resends/preview", tag = "resends", request_body = NewResendShape,
    responses((status = 200, body = ResendPreview)))]
pub(super) async fn preview_resend(session: Session, body: Body<NewResendShape>) -> Answer<ResendPreview> {
    let new = body.value.asked()?;
    Ok(Json(session.preview_resend(new.filter, new.endpoint.as_deref()).await?.into()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct ResendsQuery {
    /// How many jobs the page holds at most.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The next_token of the page before.
    next_token: Option<String>,
}

/// Jobs, newest first. Of those that have ended, the last hundred are kept.
#[utoipa::path(get, path = "/resends", tag = "resends", params(ResendsQuery),
    responses((status = 200, body = Page<ResendShape>)))]
pub(super) async fn resends(
    session: Session,
    Query(_): Query<ResendsQuery>,
    paging: Paging,
) -> Answer<Page<ResendShape>> {
    let (docs, next) = session.resends(paging.position()?, paging.limit).await?;
    Ok(Json(paging.page(docs.iter().map(ResendShape::new).collect(), next.as_ref())))
}

/// One job.
#[utoipa::path(get, path = "/resends/{id}", tag = "resends",
    params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, body = ResendShape)))]
pub(super) async fn resend(
    session: Session,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<ResendShape> {
    Ok(Json(ResendShape::new(&session.resend(&id).await?)))
}

/// Pause a job.
///
/// It opens no more rounds until it is resumed. Rounds that are open go on.
/// Errors: conflict if the job has ended.
#[utoipa::path(post, path = "/resends/{id}/pause", tag = "resends",
    params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, body = ResendShape)))]
pub(super) async fn pause_resend(session: Session, Place(id): Place<String>) -> Answer<ResendShape> {
    Ok(Json(ResendShape::new(&session.pause_resend(&id).await?)))
}

/// Go on with a paused job.
///
/// Errors: conflict if the job has ended.
#[utoipa::path(post, path = "/resends/{id}/resume", tag = "resends", request_body = ResendResume,
    params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, body = ResendShape)))]
pub(super) async fn resume_resend(
    session: Session,
    Place(id): Place<String>,
    body: Body<ResendResume>,
) -> Answer<ResendShape> {
    Ok(Json(ResendShape::new(&session.resume_resend(&id, body.value.rate).await?)))
}

/// End a job.
///
/// It opens no more rounds. Rounds that are open go on; cancelling a callback ends its round.
/// Errors: conflict if the job has ended.
#[utoipa::path(post, path = "/resends/{id}/cancel", tag = "resends",
    params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, body = ResendShape)))]
pub(super) async fn cancel_resend(session: Session, Place(id): Place<String>) -> Answer<ResendShape> {
    Ok(Json(ResendShape::new(&session.cancel_resend(&id).await?)))
}
