//! Tokens of this API, and the audit.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Body, Nothing, Place, Query};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::{AuditShape, NewTokenShape, Page, TokenShape};
use crate::ops::Session;
use crate::ops::tokens::{NewToken, scope};
use crate::store::admin::AuditFilter;

/// All tokens, newest first, without their values.
#[utoipa::path(get, path = "/tokens", tag = "tokens", responses((status = 200, body = Page<TokenShape>)))]
pub(super) async fn tokens(session: Session, Query(_): Query<Nothing>) -> Answer<Page<TokenShape>> {
    let now = session.now();
    Ok(Json(Page::whole(session.tokens().await?.iter().map(|token| TokenShape::new(token, now)).collect())))
}

/// Create a token.
///
/// Its value is in this answer and nowhere else: only the SHA-256 of it is kept. A caller can't give a token a right, a
/// team or a time that the caller does not have. A request that is repeated with its Idempotency-Key is answered without the value: revoke that
/// token and create another one.
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = NewTokenShape,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key creates nothing.")),
    responses((status = 201, body = TokenShape)))]
pub(super) async fn create_token(
    session: Session,
    body: Body<NewTokenShape>,
) -> Result<(StatusCode, Json<TokenShape>), Problem> {
    let new = NewToken {
        name: body.value.name,
        scope: scope(&body.value.scope)?,
        valid_for: body.value.valid_for_seconds.map(Duration::from_secs),
        teams: body.value.teams.unwrap_or_default(),
    };
    let (row, value) = session.create_token(new, body.once).await?.into_inner();
    let shape = TokenShape { value: value.map(|value| value.to_string()), ..TokenShape::new(&row, session.now()) };
    Ok((StatusCode::CREATED, Json(shape)))
}

/// Revoke a token. It is refused from now on.
#[utoipa::path(post, path = "/tokens/{id}/revoke", tag = "tokens",
    params(("id" = String, Path, description = "The token's id.")),
    responses((status = 200, body = TokenShape)))]
pub(super) async fn revoke_token(session: Session, Place(id): Place<String>) -> Answer<TokenShape> {
    let row = session.revoke_token(&id).await?;
    Ok(Json(TokenShape::new(&row, session.now())))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct AuditQuery {
    /// Only changes of this team, token or setting.
    object: Option<String>,
    /// Only changes by this caller.
    caller: Option<String>,
    /// How many audit rows the page holds at most.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The next_token of the page before.
    next_token: Option<String>,
}

/// Who changed what, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditShape>)))]
pub(super) async fn audit(
    session: Session,
    Query(query): Query<AuditQuery>,
    paging: Paging,
) -> Answer<Page<AuditShape>> {
    let filter = AuditFilter { object: query.object, caller: query.caller, of_teams: None };
    let rows = session.audit(filter, paging.position()?, paging.limit).await?;
    Ok(Json(paging.page_of(rows, |row| row.id, AuditShape::new)))
}
