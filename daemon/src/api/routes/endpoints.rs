//! Endpoints: where callbacks go, and how that goes.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Nothing, Place, Query};
use super::super::paging::Paging;
use super::super::shapes::names::EndpointStateName;
use super::super::shapes::{EndpointShape, Page};
use crate::ops::Ops;
use crate::ops::endpoints::Endpoint;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct EndpointsQuery {
    /// Of this team.
    team: Option<String>,
    /// active or limited.
    #[param(inline, value_type = Option<EndpointStateName>)]
    state: Option<String>,
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    next_token: Option<String>,
}

/// Endpoints in use lately or with pending callbacks, by team and origin.
#[utoipa::path(get, path = "/endpoints", tag = "endpoints", params(EndpointsQuery), security(("token" = ["read"])),
    responses((status = 200, body = Page<EndpointShape>)))]
pub(super) async fn endpoints(
    State(ops): State<Ops>,
    Query(query): Query<EndpointsQuery>,
    paging: Paging,
) -> Answer<Page<EndpointShape>> {
    let after: Option<String> = paging.position()?;
    let from = after.as_deref().and_then(|after| after.split_once('\n')).map(|(team, _)| team);
    let mut found = ops.endpoints(query.team.as_deref(), query.state.as_deref(), from).await?;
    found.docs.retain(|endpoint| after.as_ref().is_none_or(|after| endpoint.name() > *after));
    let more = found.more || found.docs.len() > paging.limit;
    found.docs.truncate(paging.limit);
    ops.count(&mut found.docs).await?;
    let next = found.docs.last().filter(|_| more).map(Endpoint::name);
    Ok(Json(paging.page(found.docs.iter().map(EndpointShape::new).collect(), next.as_ref())))
}

/// One endpoint.
#[utoipa::path(get, path = "/endpoints/{team}/{origin}", tag = "endpoints", security(("token" = ["read"])),
    params(("team" = String, Path, description = "The team's id."),
           ("origin" = String, Path, description = "Scheme, host and port, percent-encoded.")),
    responses((status = 200, body = EndpointShape)))]
pub(super) async fn endpoint(
    State(ops): State<Ops>,
    Place((team, origin)): Place<(String, String)>,
    Query(_): Query<Nothing>,
) -> Answer<EndpointShape> {
    Ok(Json(EndpointShape::new(&ops.endpoint(&team, &origin).await?)))
}
