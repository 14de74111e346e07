//! Teams, their keys, and the check of a team's receiver.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use zeroize::Zeroizing;

use super::super::extract::{Answer, Body, Nothing, Place, Query, time};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::{
    AuthSwitch, CheckShape, KeyShape, NewKeyShape, Page, PauseShape, Promotion, RevealedKey, Revocation, SwitchShape,
    TeamCheck, TeamPatch, TeamShape,
};
use crate::model::team::{Mode, Team};
use crate::ops::keys::NewKey;
use crate::ops::pauses::of_team;
use crate::ops::switch::Switch;
use crate::ops::{Session, named, required};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct TeamsQuery {
    /// How many teams the page holds at most.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The next_token of the page before.
    next_token: Option<String>,
}

/// Teams in the order of their ids.
#[utoipa::path(get, path = "/teams", tag = "teams", params(TeamsQuery),
    responses((status = 200, body = Page<TeamShape>)))]
pub(super) async fn teams(session: Session, Query(_): Query<TeamsQuery>, paging: Paging) -> Answer<Page<TeamShape>> {
    let teams = session.teams(paging.position()?, paging.limit.saturating_add(1)).await?;
    Ok(Json(paging.page_of(teams, |team| team.id.to_string(), |team| shape(&session, team))))
}

/// Create a team.
///
/// Its keys and signing secrets are created and promoted with it. Errors: conflict when there is such a team already,
/// url_refused for a default URL that may not be called.
#[utoipa::path(post, path = "/teams", tag = "teams", request_body = TeamPatch,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key creates nothing.")),
    responses((status = 201, body = TeamShape)))]
pub(super) async fn create_team(
    session: Session,
    body: Body<TeamPatch>,
) -> Result<(StatusCode, Json<TeamShape>), Problem> {
    let mut patch = body.value;
    let id = patch.team_id.take().ok_or_else(|| Problem::invalid("a new team needs its team_id"))?;
    let made = session.create_team(&id, patch.into(), body.once).await?;
    Ok((StatusCode::CREATED, Json(TeamShape::new(&made.into_inner()))))
}

/// One team.
#[utoipa::path(get, path = "/teams/{team}", tag = "teams",
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = TeamShape)))]
pub(super) async fn team(session: Session, Place(team): Place<String>, Query(_): Query<Nothing>) -> Answer<TeamShape> {
    Ok(Json(shape(&session, &session.team(&team).await?)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Confirmation {
    /// Change the team even if this ends pending callbacks.
    #[serde(default)]
    confirm: bool,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Deletion {
    /// Delete the team. Without it, the answer is an error that tells what would happen.
    #[serde(default)]
    confirm: bool,
}

/// Change a team.
///
/// What is not given stays as it is; null removes a value. A change that would end pending callbacks, such as fewer
/// retries, changes nothing unless it is confirmed; the error tells how many callbacks would end. Errors: url_refused for
/// a default URL that may not be called, confirmation_needed.
#[utoipa::path(patch, path = "/teams/{team}", tag = "teams", request_body = TeamPatch,
    params(("team" = String, Path, description = "The team's id."), Confirmation),
    responses((status = 200, body = TeamShape)))]
pub(super) async fn update_team(
    session: Session,
    Place(team): Place<String>,
    Query(query): Query<Confirmation>,
    body: Body<TeamPatch>,
) -> Answer<TeamShape> {
    if body.value.team_id.as_ref().is_some_and(|id| *id != team) {
        return Err(Problem::invalid("a team's id never changes"));
    }
    let team = session.update_team(&team, body.value.into(), query.confirm).await?;
    Ok(Json(shape(&session, &team)))
}

/// Delete a team for good.
///
/// Its pending callbacks end as abandoned (team_deleted), its keys are revoked, its new events become dead letters, and its id is
/// never used again. Its history stays for the time that it is kept. Errors: confirmation_needed, whose sentence tells how many
/// callbacks would end; conflict if it is deleted already.
#[utoipa::path(delete, path = "/teams/{team}", tag = "teams",
    params(("team" = String, Path, description = "The team's id."), Deletion),
    responses((status = 200, body = TeamShape)))]
pub(super) async fn delete_team(
    session: Session,
    Place(team): Place<String>,
    Query(query): Query<Deletion>,
) -> Answer<TeamShape> {
    Ok(Json(shape(&session, &session.delete_team(&team, query.confirm).await?)))
}

/// A team, with its pause.
fn shape(session: &Session, team: &Team) -> TeamShape {
    let paused = of_team(session, &team.id);
    TeamShape { paused: paused.as_ref().map(PauseShape::new), ..TeamShape::new(team) }
}

/// Try a team's receiver.
///
/// The daemon sends a signed test callback from its own network and reports each step. The answer is 200 whatever the
/// receiver does; `succeeded` and the steps say how it went.
#[utoipa::path(post, path = "/teams/{team}/check", tag = "teams", request_body = TeamCheck,
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = CheckShape)))]
pub(super) async fn check_team(
    session: Session,
    Place(team): Place<String>,
    body: Body<TeamCheck>,
) -> Answer<CheckShape> {
    let TeamCheck { url, mode } = body.value;
    let mode = named("mode", mode.as_deref())?.unwrap_or(Mode::Test);
    let checked = session.check_team(&team, url.as_deref(), mode).await?;
    Ok(Json(CheckShape::new(&team, &checked)))
}

/// Switch the form of scale-callback-auth, if the receiver is ready for it.
///
/// The daemon sends two test callbacks in the new form. If the receiver accepts the valid one and refuses the forged one
/// with 4xx, the new form is used from now on. The answer is 200 whatever the receiver does; `switched` and `result` say
/// what was done. Errors: conflict when that form is in use already, key_state without promoted keys of that form in
/// both modes, url_refused.
#[utoipa::path(post, path = "/teams/{team}/switch_auth", tag = "teams", request_body = AuthSwitch,
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = SwitchShape)))]
pub(super) async fn switch_auth(
    session: Session,
    Place(team): Place<String>,
    body: Body<AuthSwitch>,
) -> Answer<SwitchShape> {
    let AuthSwitch { to, origin, url } = body.value;
    let to = required("to", &to)?;
    let switched = session.switch_auth(&team, Switch { to, origin, url }).await?;
    Ok(Json(SwitchShape::new(&team, switched)))
}

/// A team's keys, oldest first, without their values.
#[utoipa::path(get, path = "/teams/{team}/keys", tag = "keys",
    params(("team" = String, Path, description = "The team's id.")),
    responses((status = 200, body = Page<KeyShape>)))]
pub(super) async fn keys(
    session: Session,
    Place(team): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<Page<KeyShape>> {
    let now = session.now();
    Ok(Json(Page::whole(session.keys(&team).await?.iter().map(|key| KeyShape::new(key, now)).collect())))
}

/// Create a key that is not used yet.
///
/// With `value` the daemon takes over a key that the customer has already. The key's value is in this answer. A request
/// that is repeated with its Idempotency-Key is answered without the value; reveal shows it. Errors: key_state when the
/// team has as many keys of that kind and mode as it may have.
#[utoipa::path(post, path = "/teams/{team}/keys", tag = "keys", request_body = NewKeyShape,
    params(("team" = String, Path, description = "The team's id."),
           ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key creates nothing.")),
    responses((status = 201, body = KeyShape)))]
pub(super) async fn create_key(
    session: Session,
    Place(team): Place<String>,
    body: Body<NewKeyShape>,
) -> Result<(StatusCode, Json<KeyShape>), Problem> {
    let new = NewKey {
        kind: required("kind", &body.value.kind)?,
        mode: required("mode", &body.value.mode)?,
        given: body.value.value.map(Zeroizing::new),
    };
    let (row, value) = session.create_key(&team, new, body.once).await?.into_inner();
    let shape = KeyShape { value: value.map(|value| value.to_string()), ..KeyShape::new(&row, session.now()) };
    Ok((StatusCode::CREATED, Json(shape)))
}

/// Use a created key from now on, or from a given time on.
///
/// Errors: key_state when it was promoted or revoked before.
#[utoipa::path(post, path = "/teams/{team}/keys/{key}/promote", tag = "keys", request_body = Promotion,
    params(("team" = String, Path, description = "The team's id."), ("key" = String, Path, description = "The key's id.")),
    responses((status = 200, body = KeyShape)))]
pub(super) async fn promote_key(
    session: Session,
    Place((team, key)): Place<(String, String)>,
    body: Body<Promotion>,
) -> Answer<KeyShape> {
    let at = body.value.at.map(|text| time(&text)).transpose()?;
    let row = session.promote_key(&team, &key, at).await?;
    Ok(Json(KeyShape::new(&row, session.now())))
}

/// Stop using a key.
///
/// Errors: key_state when it is revoked already, or when it is the last active key of its kind and mode and `force` is
/// not set.
#[utoipa::path(post, path = "/teams/{team}/keys/{key}/revoke", tag = "keys", request_body = Revocation,
    params(("team" = String, Path, description = "The team's id."), ("key" = String, Path, description = "The key's id.")),
    responses((status = 200, body = KeyShape)))]
pub(super) async fn revoke_key(
    session: Session,
    Place((team, key)): Place<(String, String)>,
    body: Body<Revocation>,
) -> Answer<KeyShape> {
    let row = session.revoke_key(&team, &key, body.value.force).await?;
    Ok(Json(KeyShape::new(&row, session.now())))
}

/// Reveal the value of a key.
///
/// Each reveal is written to the audit. Errors: key_state when the keyring does not open the key.
#[utoipa::path(post, path = "/teams/{team}/keys/{key}/reveal", tag = "keys",
    params(("team" = String, Path, description = "The team's id."), ("key" = String, Path, description = "The key's id.")),
    responses((status = 200, body = RevealedKey)))]
pub(super) async fn reveal_key(session: Session, Place((team, key)): Place<(String, String)>) -> Answer<RevealedKey> {
    let value = session.reveal_key(&team, &key).await?.to_string();
    Ok(Json(RevealedKey { key_id: key, value }))
}
