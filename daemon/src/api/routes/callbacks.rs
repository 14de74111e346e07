//! Callbacks, their attempts and bodies; tasks.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Nothing, Place, Query, time};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::names::{ModeName, StateName};
use super::super::shapes::{AttemptShape, AttemptsShape, CallbackShape, DeadLetterShape, Page, TaskShape};
use super::dead_letters::VALUE_IN_LIST;
use crate::model::callback::CallbackId;
use crate::model::settlement::Rows;
use crate::ops::callbacks::CallbackQuery;
use crate::ops::{Ops, OpsError};
use crate::store::reads;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct CallbacksQuery {
    /// Of this team.
    team: Option<String>,
    /// Of this task.
    task: Option<String>,
    /// To this origin (scheme, host and port), or following a default: default:live, default:test.
    endpoint: Option<String>,
    /// pending, delivered, exhausted or abandoned.
    #[param(inline, value_type = Option<StateName>)]
    state: Option<String>,
    /// Why it was abandoned.
    reason: Option<String>,
    /// What its last attempt came to.
    outcome: Option<String>,
    /// live or test.
    #[param(inline, value_type = Option<ModeName>)]
    mode: Option<String>,
    /// Whose event is of this time or later, RFC 3339.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Whose event is older than this, RFC 3339.
    #[param(format = DateTime)]
    until: Option<String>,
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    next_token: Option<String>,
}

/// Callbacks that match, newest event first.
///
/// Every given field must match. A search that finds little ends within its time with what it found, which may be
/// nothing: has_more then says that there is more to look at.
#[utoipa::path(get, path = "/callbacks", tag = "callbacks", params(CallbacksQuery), security(("token" = ["read"])),
    responses((status = 200, body = Page<CallbackShape>)))]
pub(super) async fn callbacks(
    State(ops): State<Ops>,
    Query(query): Query<CallbacksQuery>,
    paging: Paging,
) -> Answer<Page<CallbackShape>> {
    let query = CallbackQuery {
        team: query.team,
        task: query.task,
        endpoint: query.endpoint,
        state: query.state,
        reason: query.reason,
        outcome: query.outcome,
        mode: query.mode,
        since: query.since.as_deref().map(time).transpose()?,
        until: query.until.as_deref().map(time).transpose()?,
    };
    let found = ops.callbacks(query, reads::Page { before: paging.position()?, limit: paging.limit }).await?;
    let docs = shapes(&ops, &found.docs).await?;
    Ok(Json(paging.page(docs, found.next.as_ref())))
}

/// One callback.
#[utoipa::path(get, path = "/callbacks/{id}", tag = "callbacks", security(("token" = ["read"])),
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Its id, which is its webhook-id.")),
    responses((status = 200, body = CallbackShape)))]
pub(super) async fn callback(
    State(ops): State<Ops>,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<CallbackShape> {
    let callback = ops.callback(&id).await?;
    Ok(Json(shape(&ops, callback).await?))
}

/// What each attempt of a callback came to.
#[utoipa::path(get, path = "/callbacks/{id}/attempts", tag = "callbacks", security(("token" = ["read"])),
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "The callback's id.")),
    responses((status = 200, body = AttemptsShape)))]
pub(super) async fn attempts(
    State(ops): State<Ops>,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<AttemptsShape> {
    let (id, rows, attempts) = ops.attempts(&id).await?;
    let callback = shape(&ops, (id, rows)).await?;
    Ok(Json(AttemptsShape { callback, docs: attempts.iter().map(AttemptShape::new).collect() }))
}

/// The body of a pending callback, byte for byte as it is sent.
///
/// Errors: pruned once the callback has ended.
#[utoipa::path(get, path = "/callbacks/{id}/payload", tag = "callbacks", security(("token" = ["read"])),
    params(("id" = String, Path, pattern = "^cb_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "The callback's id.")),
    responses((status = 200, body = serde_json::Value, content_type = "application/json")))]
pub(super) async fn payload(
    State(ops): State<Ops>,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Result<Response, Problem> {
    let body = ops.payload(&id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Everything that happened to a task.
///
/// Errors: not_found with how far partitions are recorded, when nothing is known of it; pruned when it is older than
/// what is kept.
#[utoipa::path(get, path = "/tasks/{task}", tag = "tasks", security(("token" = ["read"])),
    params(("task" = String, Path, description = "The task's id.")),
    responses((status = 200, body = TaskShape)))]
pub(super) async fn task(
    State(ops): State<Ops>,
    Place(task): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<TaskShape> {
    let history = ops.task(&task).await?;
    let letters = history.dead_letters.into_iter().map(|letter| DeadLetterShape::new(letter, VALUE_IN_LIST));
    Ok(Json(TaskShape {
        callbacks: shapes(&ops, &history.callbacks).await?,
        dead_letters: letters.collect(),
        has_more: history.more,
        task_id: task,
    }))
}

async fn shapes(ops: &Ops, callbacks: &[(CallbackId, Rows)]) -> Result<Vec<CallbackShape>, Problem> {
    let statuses = ops.last_statuses(callbacks).await?;
    let shape = |((id, rows), status): (&(CallbackId, Rows), Option<u16>)| {
        CallbackShape::new(*id, rows).map(|shape| shape.with_status(status))
    };
    Ok(callbacks.iter().zip(statuses).filter_map(shape).collect())
}

async fn shape(ops: &Ops, callback: (CallbackId, Rows)) -> Result<CallbackShape, Problem> {
    let id = callback.0;
    // Between two reads its row may have gone.
    let gone = || OpsError::NotFound(format!("there is no callback {id}"));
    Ok(shapes(ops, &[callback]).await?.pop().ok_or_else(gone)?)
}
