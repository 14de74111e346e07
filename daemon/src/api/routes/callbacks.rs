//! Callbacks, their attempts and bodies; tasks.

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Body, Nothing, Place, Query, time_if_given};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::names::{ModeName, OutcomeName, ReasonName, StateName};
use super::super::shapes::{
    AttemptShape, AttemptsShape, CallbackResend, CallbackShape, DeadLetterShape, DeliveringShape, Page, RequestShape,
    TaskShape, UnderWayShape,
};
use super::dead_letters::VALUE_IN_LIST;
use crate::ops::callbacks::CallbackReport;
use crate::ops::{OpsError, Session, named};
use crate::store::reads::{self, CallbackFilter, Span};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct CallbacksQuery {
    /// Only callbacks of this team.
    team: Option<String>,
    /// Only callbacks of this task.
    task: Option<String>,
    /// Only callbacks to this origin (scheme, host and port), only those that follow a team's default URL (default:live,
    /// default:test), or only those whose task has an invalid URL of its own (none).
    endpoint: Option<String>,
    /// Only callbacks in this state.
    #[param(inline, value_type = Option<StateName>)]
    state: Option<String>,
    /// Only callbacks that were abandoned for this reason.
    #[param(inline, value_type = Option<ReasonName>)]
    reason: Option<String>,
    /// Only callbacks whose last attempt had this outcome.
    #[param(inline, value_type = Option<OutcomeName>)]
    outcome: Option<String>,
    /// Only callbacks whose last attempt was answered with this HTTP status.
    #[param(value_type = Option<u16>, minimum = 100, maximum = 999)]
    status: Option<String>,
    /// Only callbacks of live tasks, or of test tasks.
    #[param(inline, value_type = Option<ModeName>)]
    mode: Option<String>,
    /// Only callbacks whose event is of this time or later: RFC 3339, or a date, which means its midnight in
    /// UTC.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only callbacks whose event is older than this time: RFC 3339, or a date, which means its midnight in UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Only callbacks with an attempt that failed at this time or later. It needs failed_until.
    #[param(format = DateTime)]
    failed_since: Option<String>,
    /// Only callbacks with an attempt that failed before this time. It needs failed_since.
    #[param(format = DateTime)]
    failed_until: Option<String>,
    /// How many callbacks the page holds at most.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The next_token of the page before.
    next_token: Option<String>,
}

impl CallbacksQuery {
    /// The filter, and the endpoint, which `ops` looks up.
    fn filter(self) -> Result<(CallbackFilter, Option<String>), Problem> {
        let filter = CallbackFilter {
            state: named("state", self.state.as_deref())?,
            reason: named("reason", self.reason.as_deref())?,
            outcome: named("outcome", self.outcome.as_deref())?,
            status: self.status.as_deref().map(status).transpose()?,
            failed: span(self.failed_since.as_deref(), self.failed_until.as_deref())?,
            mode: named("mode", self.mode.as_deref())?,
            since: time_if_given(self.since.as_deref())?,
            until: time_if_given(self.until.as_deref())?,
            team: self.team,
            teams: None,
            task: self.task,
            queues: None,
            undelivered: false,
        };
        Ok((filter, self.endpoint))
    }
}

fn status(text: &str) -> Result<u16, Problem> {
    let status = text.parse().ok().filter(|status| (100..1_000).contains(status));
    status.ok_or_else(|| Problem::invalid("status is an HTTP status, a number from 100 to 999"))
}

/// The time in which an attempt must have failed.
pub(super) fn span(since: Option<&str>, until: Option<&str>) -> Result<Option<Span>, Problem> {
    match (time_if_given(since)?, time_if_given(until)?) {
        (Some(from), Some(until)) => Ok(Some(Span { from, until })),
        (None, None) => Ok(None),
        _ => Err(Problem::invalid("failed_since and failed_until are given together")),
    }
}

/// Callbacks that match, newest event first.
///
/// Every given field must match. A search that finds little ends within its time with what it found, which may be
/// nothing. Then has_more says that there is more to look at.
///
/// Errors: not_found for a team that does not exist; invalid_request for a filter that nothing can match.
#[utoipa::path(get, path = "/callbacks", tag = "callbacks", params(CallbacksQuery),
    responses((status = 200, body = Page<CallbackShape>)))]
pub(super) async fn callbacks(
    session: Session,
    Query(query): Query<CallbacksQuery>,
    paging: Paging,
) -> Answer<Page<CallbackShape>> {
    let (filter, endpoint) = query.filter()?;
    let page = reads::Page { before: paging.position()?, limit: paging.limit };
    let found = session.callbacks(filter, endpoint.as_deref(), page).await?;
    Ok(Json(paging.page(shapes(&found.docs), found.next.as_ref())))
}

/// One callback.
#[utoipa::path(get, path = "/callbacks/{id}", tag = "callbacks",
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Its id, which is also its webhook-id.")),
    responses((status = 200, body = CallbackShape)))]
pub(super) async fn callback(
    session: Session,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<CallbackShape> {
    Ok(Json(shape(&session.callback(&id).await?)?))
}

/// A callback, and what each of its attempts came to.
///
/// Each request is rebuilt from the settings of the team that it was sent with. Signatures and keys are masked.
/// With the right read alone, the answers of receivers are not shown: they may repeat the URL. Of URLs, the origin is shown.
#[utoipa::path(get, path = "/callbacks/{id}/attempts", tag = "callbacks",
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "The callback's id.")),
    responses((status = 200, body = AttemptsShape)))]
pub(super) async fn attempts(
    session: Session,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<AttemptsShape> {
    let report = session.attempts(&id).await?;
    Ok(Json(AttemptsShape {
        callback: shape(&report.callback)?,
        docs: report.attempts.iter().map(AttemptShape::new).collect(),
        delivered_by: report.delivered_by.as_ref().map(DeliveringShape::new),
        delivery: report.delivery.as_ref().map(RequestShape::new),
    }))
}

/// The body of a callback, byte for byte as it is sent.
///
/// It needs the right operate, because the body holds the task's URL. Each time it is written to the audit.
/// Errors: pruned once the callback has ended, unless the setting store.bodies keeps its body or Kafka still has its record.
#[utoipa::path(get, path = "/callbacks/{id}/payload", tag = "callbacks",
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "The callback's id.")),
    responses((status = 200, body = serde_json::Value, content_type = "application/json")))]
pub(super) async fn payload(
    session: Session,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Result<Response, Problem> {
    let body = session.payload(&id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Make the next attempt of a pending callback due now.
///
/// It takes the place of the planned attempt: the callback gets no attempt more than before.
/// Errors: conflict while an attempt is under way, and after the callback has ended.
#[utoipa::path(post, path = "/callbacks/{id}/retry", tag = "callbacks",
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "The callback's id.")),
    responses((status = 200, body = CallbackShape)))]
pub(super) async fn retry_callback(session: Session, Place(id): Place<String>) -> Answer<CallbackShape> {
    Ok(Json(shape(&session.retry_callback(&id).await?)?))
}

/// Send a callback that has ended once more.
///
/// It opens a round, with tries and a horizon of its own: the same id and the same body, signed with the keys of now. It goes to
/// the task's own URL, or to the team's default URL where the task has none, or where `to_default` says so. A delivery in any
/// round makes the callback delivered for good; a round that fails changes nothing.
/// Errors: conflict if the callback has not ended, if it is being sent again already, or if it would go to an origin where it
/// never went and `allow_new_origin` is not true; pruned if its body is not kept.
#[utoipa::path(post, path = "/callbacks/{id}/resend", tag = "callbacks", request_body = CallbackResend,
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "The callback's id.")),
    responses((status = 200, body = CallbackShape)))]
pub(super) async fn resend_callback(
    session: Session,
    Place(id): Place<String>,
    body: Body<CallbackResend>,
) -> Answer<CallbackShape> {
    Ok(Json(shape(&session.resend_callback(&id, body.value.into()).await?)?))
}

/// End a pending callback without another attempt.
///
/// It is abandoned for the reason `cancelled`. An attempt that is under way goes on; if the receiver accepts it, the callback
/// is delivered all the same. A callback that had ended and is being sent again keeps its state, and only the round ends.
/// Errors: conflict after the callback has ended.
#[utoipa::path(post, path = "/callbacks/{id}/cancel", tag = "callbacks",
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "The callback's id.")),
    responses((status = 200, body = CallbackShape)))]
pub(super) async fn cancel_callback(session: Session, Place(id): Place<String>) -> Answer<CallbackShape> {
    Ok(Json(shape(&session.cancel_callback(&id).await?)?))
}

/// Everything that happened to a task, and its callbacks that are under way for the first time.
///
/// Errors: not_found when nothing is known of the task, with how far the partitions are recorded; pruned when the task
/// is older than what is kept.
#[utoipa::path(get, path = "/tasks/{task}", tag = "tasks",
    params(("task" = String, Path, description = "The task's id.")),
    responses((status = 200, body = TaskShape)))]
pub(super) async fn task(session: Session, Place(task): Place<String>, Query(_): Query<Nothing>) -> Answer<TaskShape> {
    let history = session.task(&task).await?;
    let letters = history.dead_letters.into_iter().map(|letter| DeadLetterShape::new(letter, VALUE_IN_LIST));
    Ok(Json(TaskShape {
        under_way: history.under_way.iter().map(UnderWayShape::new).collect(),
        callbacks: shapes(&history.callbacks),
        dead_letters: letters.collect(),
        has_more: history.more,
        task_id: task,
    }))
}

fn shapes(callbacks: &[CallbackReport]) -> Vec<CallbackShape> {
    callbacks.iter().filter_map(CallbackShape::new).collect()
}

fn shape(callback: &CallbackReport) -> Result<CallbackShape, Problem> {
    // Its rows may be deleted between two reads of the store.
    let gone = || OpsError::NotFound(format!("there is no callback {}", callback.id));
    Ok(CallbackShape::new(callback).ok_or_else(gone)?)
}
