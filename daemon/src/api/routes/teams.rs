//! Teams, their keys, and the check of a team's receiver.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;
use zeroize::Zeroizing;

use super::super::access::Asker;
use super::super::extract::{Answer, Body, Nothing, Place, Query, time};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::{
    AuthSwitch, CheckShape, KeyShape, NewKeyShape, Page, Promotion, RevealedKey, Revocation, SwitchShape, TeamCheck,
    TeamPatch, TeamShape,
};
use crate::model::team::{AuthForm, KeyKind, Mode, parse_mode};
use crate::ops::Ops;
use crate::ops::keys::NewKey;
use crate::ops::switch::Switch;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "they stand here for the document; Paging reads them")]
pub(super) struct TeamsQuery {
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    next_token: Option<String>,
}

/// Teams in the order of their ids.
#[utoipa::path(get, path = "/teams", tag = "teams", params(TeamsQuery), security(("token" = ["read"])),
    responses((status = 200, body = Page<TeamShape>)))]
pub(super) async fn teams(
    State(ops): State<Ops>,
    Query(_): Query<TeamsQuery>,
    paging: Paging,
) -> Answer<Page<TeamShape>> {
    let teams = ops.teams(paging.position()?, paging.limit.saturating_add(1)).await?;
    Ok(Json(paging.page_of(teams, |team| team.id.to_string(), TeamShape::new)))
}

/// Make a team. Its keys and signing secrets are made and promoted with it.
///
/// Errors: conflict when there is such a team, url_refused for a default URL that may not be called.
#[utoipa::path(post, path = "/teams", tag = "teams", request_body = TeamPatch, security(("token" = ["operate"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeated, the request makes nothing twice.")),
    responses((status = 201, body = TeamShape)))]
pub(super) async fn create_team(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    body: Body<TeamPatch>,
) -> Result<(StatusCode, Json<TeamShape>), Problem> {
    let mut patch = body.value;
    let id = patch.team_id.take().ok_or_else(|| Problem::invalid("a new team needs its team_id"))?;
    let made = ops.create_team(&caller.caller, &id, patch.into(), body.once).await?;
    Ok((StatusCode::CREATED, Json(TeamShape::new(&made.into_inner()))))
}

/// One team.
#[utoipa::path(get, path = "/teams/{team}", tag = "teams", security(("token" = ["read"])),
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = TeamShape)))]
pub(super) async fn team(
    State(ops): State<Ops>,
    Place(team): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<TeamShape> {
    Ok(Json(TeamShape::new(&ops.team(&team).await?)))
}

/// Change what is given of a team; null takes a value away.
///
/// Errors: url_refused for a default URL that may not be called.
#[utoipa::path(patch, path = "/teams/{team}", tag = "teams", request_body = TeamPatch,
    security(("token" = ["operate"])), params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = TeamShape)))]
pub(super) async fn update_team(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place(team): Place<String>,
    body: Body<TeamPatch>,
) -> Answer<TeamShape> {
    if body.value.team_id.as_ref().is_some_and(|id| *id != team) {
        return Err(Problem::invalid("a team's id never changes"));
    }
    Ok(Json(TeamShape::new(&ops.update_team(&caller.caller, &team, body.value.into()).await?)))
}

/// Try a team's receiver: a signed test callback from the daemon's own network, step by step.
///
/// The answer is 200 whatever the receiver does; `succeeded` and the steps say how it went.
#[utoipa::path(post, path = "/teams/{team}/check", tag = "teams", request_body = TeamCheck,
    security(("token" = ["operate"])), params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = CheckShape)))]
pub(super) async fn check_team(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place(team): Place<String>,
    body: Body<TeamCheck>,
) -> Answer<CheckShape> {
    let TeamCheck { url, mode } = body.value;
    let mode = mode.as_deref().map_or(Ok(Mode::Test), mode_of)?;
    let checked = ops.check_team(&caller.caller, &team, url.as_deref(), mode).await?;
    Ok(Json(CheckShape::new(&team, &checked)))
}

/// Switch the form of scale-callback-auth, once the receiver is ready for it.
///
/// A right test callback in the new form must be taken and a spoiled one refused with 4xx; then the new form is used
/// from now on. The answer is 200 whatever the receiver does; `switched` and `result` say what was done.
/// Errors: conflict when that form is sent already, key_state without promoted keys of that form in both modes,
/// url_refused.
#[utoipa::path(post, path = "/teams/{team}/switch_auth", tag = "teams", request_body = AuthSwitch,
    security(("token" = ["operate"])), params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = SwitchShape)))]
pub(super) async fn switch_auth(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place(team): Place<String>,
    body: Body<AuthSwitch>,
) -> Answer<SwitchShape> {
    let AuthSwitch { to, origin, url } = body.value;
    let to = AuthForm::parse(&to).ok_or_else(|| Problem::invalid("to is \"key\" or \"hmac\""))?;
    let switched = ops.switch_auth(&caller.caller, &team, Switch { to, origin, url }).await?;
    Ok(Json(SwitchShape::new(&team, switched)))
}

/// A team's keys, without their values, oldest first.
#[utoipa::path(get, path = "/teams/{team}/keys", tag = "keys", security(("token" = ["read"])),
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = Page<KeyShape>)))]
pub(super) async fn keys(
    State(ops): State<Ops>,
    Place(team): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<Page<KeyShape>> {
    let now = ops.clock.now();
    Ok(Json(Page::whole(ops.keys(&team).await?.iter().map(|key| KeyShape::new(key, now)).collect())))
}

/// Make a key that is not used yet, or take over one. Its value is in this answer and in no other.
///
/// A request that is repeated with its Idempotency-Key is answered without the value; reveal shows it.
/// Errors: key_state when there are as many such keys as there may be.
#[utoipa::path(post, path = "/teams/{team}/keys", tag = "keys", request_body = NewKeyShape,
    security(("token" = ["operate"])),
    params(("team" = String, Path, description = "The team's id."),
           ("Idempotency-Key" = Option<String>, Header, description = "Repeated, the request makes nothing twice.")),
    responses((status = 201, body = KeyShape)))]
pub(super) async fn create_key(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place(team): Place<String>,
    body: Body<NewKeyShape>,
) -> Result<(StatusCode, Json<KeyShape>), Problem> {
    let new = NewKey {
        kind: KeyKind::parse(&body.value.kind)
            .ok_or_else(|| Problem::invalid("kind is one of callback-auth, hmac, signing"))?,
        mode: mode_of(&body.value.mode)?,
        given: body.value.value.map(Zeroizing::new),
    };
    let (row, value) = ops.create_key(&caller.caller, &team, new, body.once).await?.into_inner();
    let shape = KeyShape { value: value.map(|value| value.to_string()), ..KeyShape::new(&row, ops.clock.now()) };
    Ok((StatusCode::CREATED, Json(shape)))
}

/// Use a created key from now on, or from a time.
///
/// Errors: key_state when it was promoted or revoked.
#[utoipa::path(post, path = "/teams/{team}/keys/{key}/promote", tag = "keys", request_body = Promotion,
    security(("token" = ["operate"])),
    params(("team" = String, Path, description = "The team's id."), ("key" = String, Path, description = "The key's id.")),
    responses((status = 200, body = KeyShape)))]
pub(super) async fn promote_key(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place((team, key)): Place<(String, String)>,
    body: Body<Promotion>,
) -> Answer<KeyShape> {
    let at = body.value.at.map(|text| time(&text)).transpose()?;
    let row = ops.promote_key(&caller.caller, &team, &key, at).await?;
    Ok(Json(KeyShape::new(&row, ops.clock.now())))
}

/// Use a key no more.
///
/// Errors: key_state when it is revoked already, or the last usable one of its kind and mode and not forced.
#[utoipa::path(post, path = "/teams/{team}/keys/{key}/revoke", tag = "keys", request_body = Revocation,
    security(("token" = ["operate"])),
    params(("team" = String, Path, description = "The team's id."), ("key" = String, Path, description = "The key's id.")),
    responses((status = 200, body = KeyShape)))]
pub(super) async fn revoke_key(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place((team, key)): Place<(String, String)>,
    body: Body<Revocation>,
) -> Answer<KeyShape> {
    let row = ops.revoke_key(&caller.caller, &team, &key, body.value.force).await?;
    Ok(Json(KeyShape::new(&row, ops.clock.now())))
}

/// A key's value. It is audited.
///
/// Errors: key_state when the keyring does not open it.
#[utoipa::path(post, path = "/teams/{team}/keys/{key}/reveal", tag = "keys", security(("token" = ["operate"])),
    params(("team" = String, Path, description = "The team's id."), ("key" = String, Path, description = "The key's id.")),
    responses((status = 200, body = RevealedKey)))]
pub(super) async fn reveal_key(
    State(ops): State<Ops>,
    Extension(caller): Extension<Asker>,
    Place((team, key)): Place<(String, String)>,
) -> Answer<RevealedKey> {
    let value = ops.reveal_key(&caller.caller, &team, &key).await?.to_string();
    Ok(Json(RevealedKey { key_id: key, value }))
}

fn mode_of(name: &str) -> Result<Mode, Problem> {
    parse_mode(name).ok_or_else(|| Problem::invalid("mode is one of live, test"))
}
