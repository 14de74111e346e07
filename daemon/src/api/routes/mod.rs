//! The operations of `/admin/v1`, by noun. Each handler parses the request, calls one operation of `ops`, and writes the
//! answer. Its documentation is the API's.

mod bulk;
mod callbacks;
mod dead_letters;
mod endpoints;
mod pauses;
mod resends;
mod resets;
mod status;
mod teams;
mod tokens;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ops::Ops;

/// Every operation. Which right each one needs is known by `ops::policy`.
pub(super) fn all() -> OpenApiRouter<Ops> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(status::instances))
        .routes(routes!(status::offsets))
        .routes(routes!(status::accept_offsets))
        .routes(routes!(resets::rewind_offsets))
        .routes(routes!(resets::skip_offsets))
        .routes(routes!(status::accept_clock))
        .routes(routes!(status::log_level, status::set_log_level))
        .routes(routes!(pauses::delivery))
        .routes(routes!(pauses::pause_delivery))
        .routes(routes!(pauses::resume_delivery))
        .routes(routes!(teams::teams, teams::create_team))
        .routes(routes!(teams::team, teams::update_team, teams::delete_team))
        .routes(routes!(teams::check_team))
        .routes(routes!(teams::switch_auth))
        .routes(routes!(pauses::pause_team))
        .routes(routes!(pauses::resume_team))
        .routes(routes!(teams::keys, teams::create_key))
        .routes(routes!(teams::promote_key))
        .routes(routes!(teams::revoke_key))
        .routes(routes!(teams::reveal_key))
        .routes(routes!(callbacks::callbacks))
        .routes(routes!(bulk::retry_callbacks))
        .routes(routes!(bulk::cancel_callbacks))
        .routes(routes!(callbacks::callback))
        .routes(routes!(callbacks::attempts))
        .routes(routes!(callbacks::payload))
        .routes(routes!(callbacks::retry_callback))
        .routes(routes!(callbacks::resend_callback))
        .routes(routes!(callbacks::cancel_callback))
        .routes(routes!(callbacks::task))
        .routes(routes!(dead_letters::dead_letters))
        .routes(routes!(dead_letters::dead_letter))
        .routes(routes!(dead_letters::resend_dead_letter))
        .routes(routes!(dead_letters::discard_dead_letter))
        .routes(routes!(endpoints::endpoints))
        .routes(routes!(endpoints::endpoint))
        .routes(routes!(endpoints::retry_endpoint))
        .routes(routes!(pauses::pause_endpoint))
        .routes(routes!(pauses::resume_endpoint))
        .routes(routes!(resends::resends, resends::create_resend))
        .routes(routes!(resends::preview_resend))
        .routes(routes!(resends::resend))
        .routes(routes!(resends::pause_resend))
        .routes(routes!(resends::resume_resend))
        .routes(routes!(resends::cancel_resend))
        .routes(routes!(tokens::tokens, tokens::create_token))
        .routes(routes!(tokens::revoke_token))
        .routes(routes!(tokens::audit))
}
