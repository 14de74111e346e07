//! Dead letters.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Nothing, Place, Query, time};
use super::super::paging::Paging;
use super::super::shapes::{DeadLetterShape, Page};
use crate::ops::Ops;
use crate::ops::callbacks::DeadLetterQuery;
use crate::store::reads;

/// Bytes of a dead letter's value that a list shows, and one letter alone.
pub(super) const VALUE_IN_LIST: usize = 120;
const VALUE_ALONE: usize = 64 * 1024;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct DeadLettersQuery {
    /// Of this team, as far as the record named one.
    team: Option<String>,
    /// Of this task, as far as the record named one.
    task: Option<String>,
    /// Why it can't become a callback.
    reason: Option<String>,
    /// Of a record of this time or later, RFC 3339.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Of a record older than this, RFC 3339.
    #[param(format = DateTime)]
    until: Option<String>,
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    next_token: Option<String>,
}

/// Task events that can't become a callback, newest first.
#[utoipa::path(get, path = "/dead_letters", tag = "dead letters", params(DeadLettersQuery),
    security(("token" = ["read"])), responses((status = 200, body = Page<DeadLetterShape>)))]
pub(super) async fn dead_letters(
    State(ops): State<Ops>,
    Query(query): Query<DeadLettersQuery>,
    paging: Paging,
) -> Answer<Page<DeadLetterShape>> {
    let query = DeadLetterQuery {
        team: query.team,
        task: query.task,
        reason: query.reason,
        since: query.since.as_deref().map(time).transpose()?,
        until: query.until.as_deref().map(time).transpose()?,
    };
    let found = ops.dead_letters(query, reads::Page { before: paging.position()?, limit: paging.limit }).await?;
    let docs = found.docs.into_iter().map(|letter| DeadLetterShape::new(letter, VALUE_IN_LIST)).collect();
    Ok(Json(paging.page(docs, found.next.as_ref())))
}

/// One dead letter, with its bytes as text.
#[utoipa::path(get, path = "/dead_letters/{id}", tag = "dead letters", security(("token" = ["read"])),
    params(("id" = String, Path, pattern = "^dl_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Its id, dl_ and 26 characters.")),
    responses((status = 200, body = DeadLetterShape)))]
pub(super) async fn dead_letter(
    State(ops): State<Ops>,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<DeadLetterShape> {
    Ok(Json(DeadLetterShape::new(ops.dead_letter(&id).await?, VALUE_ALONE)))
}
