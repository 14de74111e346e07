//! Tokens of this API, and the audit.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::access::Asker;
use super::super::extract::{Answer, Body, Nothing, Place, Query};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::{AuditShape, NewTokenShape, Page, TokenShape};
use crate::ops::Ops;
use crate::ops::tokens::{NewToken, USUAL};
use crate::store::admin::{AuditFilter, Scope};

/// All tokens, newest first; never their values.
#[utoipa::path(get, path = "/tokens", tag = "tokens", security(("token" = ["read"])),
    responses((status = 200, body = Page<TokenShape>)))]
pub(super) async fn tokens(State(ops): State<Ops>, Query(_): Query<Nothing>) -> Answer<Page<TokenShape>> {
    let now = ops.clock.now();
    Ok(Json(Page::whole(ops.tokens().await?.iter().map(|token| TokenShape::new(token, now)).collect())))
}

/// Make a token. Its value is in this answer and nowhere else: only its SHA-256 is kept.
///
/// A request that is repeated with its Idempotency-Key is answered without the value: revoke that token and make
/// another.
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = NewTokenShape, security(("token" = ["operate"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeated, the request makes nothing twice.")),
    responses((status = 201, body = TokenShape)))]
pub(super) async fn create_token(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    body: Body<NewTokenShape>,
) -> Result<(StatusCode, Json<TokenShape>), Problem> {
    let new = NewToken {
        name: body.value.name,
        scope: Scope::parse(&body.value.scope).ok_or_else(|| Problem::invalid("scope is one of read, operate"))?,
        valid_for: body.value.valid_for_seconds.map_or(USUAL, Duration::from_secs),
    };
    let (row, value) = ops.create_token(&caller.caller, new, body.once).await?.into_inner();
    let shape = TokenShape { value: value.map(|value| value.to_string()), ..TokenShape::new(&row, ops.clock.now()) };
    Ok((StatusCode::CREATED, Json(shape)))
}

/// Revoke a token: it is refused from now on.
#[utoipa::path(post, path = "/tokens/{id}/revoke", tag = "tokens", security(("token" = ["operate"])),
    params(("id" = String, Path, description = "The token's id.")),
    responses((status = 200, body = TokenShape)))]
pub(super) async fn revoke_token(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place(id): Place<String>,
) -> Answer<TokenShape> {
    let row = ops.revoke_token(&caller.caller, &id).await?;
    Ok(Json(TokenShape::new(&row, ops.clock.now())))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct AuditQuery {
    /// Of this team, token or setting.
    object: Option<String>,
    /// By this caller.
    caller: Option<String>,
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    next_token: Option<String>,
}

/// Who changed what, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery), security(("token" = ["read"])),
    responses((status = 200, body = Page<AuditShape>)))]
pub(super) async fn audit(
    State(ops): State<Ops>,
    Query(query): Query<AuditQuery>,
    paging: Paging,
) -> Answer<Page<AuditShape>> {
    let filter = AuditFilter { object: query.object, caller: query.caller };
    let rows = ops.audit(filter, paging.position()?, paging.limit).await?;
    Ok(Json(paging.page_of(rows, |row| row.id, AuditShape::new)))
}
