//! Endpoints: where callbacks go, and how their attempts went lately.

use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Nothing, Place, Query};
use super::super::paging::Paging;
use super::super::shapes::names::EndpointStateName;
use super::super::shapes::{EndpointRetry, EndpointShape, Page};
use crate::ops::endpoints::{Endpoint, EndpointFilter};
use crate::ops::{Session, named};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct EndpointsQuery {
    /// Only endpoints of this team.
    team: Option<String>,
    /// Only endpoints in this state.
    #[param(inline, value_type = Option<EndpointStateName>)]
    state: Option<String>,
    /// How many endpoints the page holds at most.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The next_token of the page before.
    next_token: Option<String>,
}

/// Endpoints in use lately or with pending callbacks, by team and origin.
///
/// Errors: not_found for a team that does not exist.
#[utoipa::path(get, path = "/endpoints", tag = "endpoints", params(EndpointsQuery),
    responses((status = 200, body = Page<EndpointShape>)))]
pub(super) async fn endpoints(
    session: Session,
    Query(query): Query<EndpointsQuery>,
    paging: Paging,
) -> Answer<Page<EndpointShape>> {
    let filter = EndpointFilter { state: named("state", query.state.as_deref())?, team: query.team };
    let after: Option<String> = paging.position()?;
    let found = session.endpoints(filter, after.as_deref(), paging.limit).await?;
    let next = found.docs.last().filter(|_| found.more).map(Endpoint::name);
    Ok(Json(paging.page(found.docs.iter().map(EndpointShape::new).collect(), next.as_ref())))
}

/// One endpoint.
#[utoipa::path(get, path = "/endpoints/{team}/{origin}", tag = "endpoints",
    params(("team" = String, Path, description = "The team's id."),
           ("origin" = String, Path, description = "Scheme, host and port, percent-encoded.")),
    responses((status = 200, body = EndpointShape)))]
pub(super) async fn endpoint(
    session: Session,
    Place((team, origin)): Place<(String, String)>,
    Query(_): Query<Nothing>,
) -> Answer<EndpointShape> {
    Ok(Json(EndpointShape::new(&session.endpoint(&team, &origin).await?)))
}

/// Make the next attempts of all pending callbacks of an endpoint due now.
///
/// Each takes the place of the planned one: no callback gets an attempt more than before. They go out as fast as the limits of the
/// endpoint allow. The answer says how many callbacks waited for a later time.
#[utoipa::path(post, path = "/endpoints/{team}/{origin}/retry", tag = "endpoints",
    params(("team" = String, Path, description = "The team's id."),
           ("origin" = String, Path, description = "Scheme, host and port, percent-encoded.")),
    responses((status = 200, body = EndpointRetry)))]
pub(super) async fn retry_endpoint(
    session: Session,
    Place((team, origin)): Place<(String, String)>,
) -> Answer<EndpointRetry> {
    let made_due = session.retry_endpoint(&team, &origin).await?;
    Ok(Json(EndpointRetry { team_id: team, origin, made_due }))
}
