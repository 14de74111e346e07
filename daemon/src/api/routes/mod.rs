//! The operations of `/admin/v1`, by noun. Each handler parses, calls `ops`, and answers; its documentation is the API's.

mod callbacks;
mod dead_letters;
mod endpoints;
mod status;
mod teams;
mod tokens;

use axum::middleware::from_fn;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::operators;
use crate::ops::Ops;

/// What a token of the read scope may do, and behind it what needs the operate scope.
pub(super) fn all() -> OpenApiRouter<Ops> {
    let read = OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(status::instances))
        .routes(routes!(status::offsets))
        .routes(routes!(status::log_level))
        .routes(routes!(teams::teams))
        .routes(routes!(teams::team))
        .routes(routes!(teams::keys))
        .routes(routes!(callbacks::callbacks))
        .routes(routes!(callbacks::callback))
        .routes(routes!(callbacks::attempts))
        .routes(routes!(callbacks::payload))
        .routes(routes!(callbacks::task))
        .routes(routes!(dead_letters::dead_letters))
        .routes(routes!(dead_letters::dead_letter))
        .routes(routes!(endpoints::endpoints))
        .routes(routes!(endpoints::endpoint))
        .routes(routes!(tokens::tokens))
        .routes(routes!(tokens::audit));
    let operate = OpenApiRouter::new()
        .routes(routes!(status::accept_offsets))
        .routes(routes!(status::set_log_level))
        .routes(routes!(teams::create_team))
        .routes(routes!(teams::update_team))
        .routes(routes!(teams::check_team))
        .routes(routes!(teams::switch_auth))
        .routes(routes!(teams::create_key))
        .routes(routes!(teams::promote_key))
        .routes(routes!(teams::revoke_key))
        .routes(routes!(teams::reveal_key))
        .routes(routes!(tokens::create_token))
        .routes(routes!(tokens::revoke_token))
        .route_layer(from_fn(operators));
    read.merge(operate)
}
