//! Changes of many pending callbacks.

use axum::Json;

use super::super::extract::{Answer, Body, time_if_given};
use super::super::problem::Problem;
use super::super::shapes::{BulkShape, PendingShape};
use super::callbacks::span;
use crate::model::callback::CallbackId;
use crate::ops::bulk::{Bulk, Which};
use crate::ops::{Session, named};
use crate::store::reads::CallbackFilter;

/// At most so many callbacks are changed, unless the request says otherwise.
const AT_MOST: u64 = 100;

impl PendingShape {
    fn asked(self) -> Result<Which, Problem> {
        let filter = CallbackFilter {
            team: self.team,
            task: self.task,
            outcome: named("outcome", self.outcome.as_deref())?,
            status: self.status,
            failed: span(self.failed_since.as_deref(), self.failed_until.as_deref())?,
            mode: named("mode", self.mode.as_deref())?,
            since: time_if_given(self.since.as_deref())?,
            until: time_if_given(self.until.as_deref())?,
            ..CallbackFilter::default()
        };
        let token = |token: String| {
            CallbackId::parse(&token).ok_or_else(|| Problem::invalid("this next_token belongs to another request"))
        };
        let before = self.next_token.map(token).transpose()?;
        Ok(Which { filter, endpoint: self.endpoint, at_most: self.at_most.unwrap_or(AT_MOST), before })
    }
}

impl From<Bulk> for BulkShape {
    fn from(bulk: Bulk) -> Self {
        let next_token = bulk.next.map(|id| id.to_string());
        Self { changed: bulk.changed, left_alone: bulk.left_alone, next_token }
    }
}

/// Make the next attempts of pending callbacks due now.
///
/// Each takes the place of the planned one: no callback gets an attempt more than before. They go out as fast as the limits of
/// their endpoints allow. A request changes up to a thousand callbacks.
/// Errors: too_many_rows if more than at_most callbacks match; not_found for a team that does not exist.
#[utoipa::path(post, path = "/callbacks/retry", tag = "callbacks", request_body = PendingShape,
    responses((status = 200, body = BulkShape)))]
pub(super) async fn retry_callbacks(session: Session, body: Body<PendingShape>) -> Answer<BulkShape> {
    Ok(Json(session.retry_callbacks(body.value.asked()?).await?.into()))
}

/// End pending callbacks without another attempt.
///
/// They are abandoned for the reason `cancelled`. Of callbacks that had ended and are being sent again, only the rounds end. A
/// request changes up to a thousand callbacks.
/// Errors: too_many_rows if more than at_most callbacks match; not_found for a team that does not exist.
#[utoipa::path(post, path = "/callbacks/cancel", tag = "callbacks", request_body = PendingShape,
    responses((status = 200, body = BulkShape)))]
pub(super) async fn cancel_callbacks(session: Session, body: Body<PendingShape>) -> Answer<BulkShape> {
    Ok(Json(session.cancel_callbacks(body.value.asked()?).await?.into()))
}
