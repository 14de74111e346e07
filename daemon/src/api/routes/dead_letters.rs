//! Dead letters.

use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::extract::{Answer, Nothing, Place, Query, time_if_given};
use super::super::paging::Paging;
use super::super::problem::Problem;
use super::super::shapes::names::UnreadableName;
use super::super::shapes::{DeadLetterShape, Page};
use crate::model::dead_letter::LetterState;
use crate::ops::{Session, named, required};
use crate::store::reads::{self, DeadLetterFilter};

/// Bytes of a dead letter's value that a list shows, and that one letter alone shows.
pub(super) const VALUE_IN_LIST: usize = 120;
const VALUE_ALONE: usize = 64 * 1024;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "limit and next_token stand here for the document; Paging reads them")]
pub(super) struct DeadLettersQuery {
    /// Only records that name this team.
    team: Option<String>,
    /// Only records that name this task.
    task: Option<String>,
    /// Why the record can't become a callback.
    #[param(inline, value_type = Option<UnreadableName>)]
    reason: Option<String>,
    /// Only dead letters in this state, `open` unless given; `all` for all of them.
    state: Option<String>,
    /// Only records of this time or later: RFC 3339, or a date, which means its midnight in
    /// UTC.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only records that are older than this time: RFC 3339, or a date, which means its midnight in UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// How many dead letters the page holds at most.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The next_token of the page before.
    next_token: Option<String>,
}

impl DeadLettersQuery {
    fn filter(self) -> Result<DeadLetterFilter, Problem> {
        Ok(DeadLetterFilter {
            reason: named("reason", self.reason.as_deref())?,
            state: match self.state.as_deref() {
                None => Some(LetterState::Open),
                Some("all") => None,
                Some(name) => Some(required("state", name)?),
            },
            since: time_if_given(self.since.as_deref())?,
            until: time_if_given(self.until.as_deref())?,
            team: self.team,
            teams: None,
            task: self.task,
        })
    }
}

/// Task events that can't become a callback, newest first.
///
/// With the right read alone, values are not shown: they may hold the task's URL.
///
/// Errors: not_found for a team that neither exists nor is named by any dead letter.
#[utoipa::path(get, path = "/dead_letters", tag = "dead letters", params(DeadLettersQuery),
    responses((status = 200, body = Page<DeadLetterShape>)))]
pub(super) async fn dead_letters(
    session: Session,
    Query(query): Query<DeadLettersQuery>,
    paging: Paging,
) -> Answer<Page<DeadLetterShape>> {
    let page = reads::Page { before: paging.position()?, limit: paging.limit };
    let found = session.dead_letters(query.filter()?, page).await?;
    let docs = found.docs.into_iter().map(|letter| DeadLetterShape::new(letter, VALUE_IN_LIST)).collect();
    Ok(Json(paging.page(docs, found.next.as_ref())))
}

/// One dead letter, with its bytes as text.
#[utoipa::path(get, path = "/dead_letters/{id}", tag = "dead letters",
    params(("id" = String, Path, pattern = "^dl_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Its id: dl_ and 26 characters.")),
    responses((status = 200, body = DeadLetterShape)))]
pub(super) async fn dead_letter(
    session: Session,
    Place(id): Place<String>,
    Query(_): Query<Nothing>,
) -> Answer<DeadLetterShape> {
    Ok(Json(DeadLetterShape::new(session.dead_letter(&id).await?, VALUE_ALONE)))
}

/// Read a dead letter once more, after what was wrong was mended.
///
/// Its team was created, for example, or `intake.max_event` was raised. If it can be read now, it becomes a callback that is due,
/// with the id that its event would have had.
/// Errors: conflict if it still can't become a callback, or did before; pruned if its record is neither kept nor in Kafka.
#[utoipa::path(post, path = "/dead_letters/{id}/resend", tag = "dead letters",
    params(("id" = String, Path, pattern = "^dl_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Its id: dl_ and 26 characters.")),
    responses((status = 200, body = DeadLetterShape)))]
pub(super) async fn resend_dead_letter(session: Session, Place(id): Place<String>) -> Answer<DeadLetterShape> {
    Ok(Json(DeadLetterShape::new(session.resend_dead_letter(&id).await?, VALUE_IN_LIST)))
}

/// Set a dead letter aside.
///
/// Lists do not show it unless they are asked for it. It can still be sent again.
/// Errors: conflict if it became a callback.
#[utoipa::path(post, path = "/dead_letters/{id}/discard", tag = "dead letters",
    params(("id" = String, Path, pattern = "^dl_[0-7][0-9a-hjkmnp-tv-z]{25}$", description = "Its id: dl_ and 26 characters.")),
    responses((status = 200, body = DeadLetterShape)))]
pub(super) async fn discard_dead_letter(session: Session, Place(id): Place<String>) -> Answer<DeadLetterShape> {
    Ok(Json(DeadLetterShape::new(session.discard_dead_letter(&id).await?, VALUE_IN_LIST)))
}
