//! Jobs that send many callbacks again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::filtered::filtered;
use super::names::{ModeName, OutcomeName, ReasonName, ResendStateName, StateName};
use super::time;
use crate::ops::resends::Matched;
use crate::store::resends::ResendRow;

filtered! {
    /// Which callbacks are sent again, and how. Every given filter must match.
    pub struct NewResendShape {
        /// Only callbacks in this state. Without a state and a reason, it is all that have ended and were not delivered.
        #[schema(inline, value_type = Option<StateName>)]
        pub state: Option<String>,
        /// Only callbacks that were abandoned for this reason.
        #[schema(inline, value_type = Option<ReasonName>)]
        pub reason: Option<String>,
        /// To the team's default URL, and not to the task's own.
        pub to_default: bool,
        /// Also if that leads to an origin where the callback never went.
        pub allow_new_origin: bool,
        /// Each with an id of its own, so that a receiver that knows the callback's id takes it as new.
        pub new_id: bool,
        /// At most so many callbacks a second. Without it, as many as there is room for.
        #[schema(minimum = 1, maximum = 1_000_000)]
        pub rate: Option<u32>,
        /// Nothing is done if more callbacks match. 100 unless given.
        pub at_most: Option<u64>,
    }
}

/// How many callbacks match.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResendPreview {
    pub matched: u64,
    /// False if there was no time to count all of them: then there are more.
    pub is_all: bool,
}

impl From<Matched> for ResendPreview {
    fn from(matched: Matched) -> Self {
        Self { matched: matched.count, is_all: matched.is_all }
    }
}

/// A job that sends many callbacks again, newest event first.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResendShape {
    pub resend_id: String,
    #[schema(inline, value_type = ResendStateName)]
    pub state: &'static str,
    /// How many callbacks matched when the job began.
    pub matched: u64,
    /// How many of them it has looked at.
    pub looked_at: u64,
    /// How many are sent again, or were. Whether they arrive, their own states tell.
    pub opened: u64,
    /// How many were left alone: the sum of the next three.
    pub left_alone: u64,
    /// How many were left alone because they were being sent again already, or ended after the job began.
    pub busy: u64,
    /// How many were left alone because their bodies are not kept, and Kafka does not have their records any more.
    pub no_body: u64,
    /// How many were left alone because they would have gone to a new origin without consent, or have no URL to go to.
    pub refused: u64,
    /// At most so many callbacks a second; null for as many as there is room for.
    pub rate: Option<u32>,
    pub filter: ResendFilterShape,
    pub to_default: bool,
    pub allow_new_origin: bool,
    pub new_id: bool,
    pub created_at: String,
    pub created_by: String,
    pub changed_at: String,
}

/// Which callbacks a job sends again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResendFilterShape {
    pub team: Option<String>,
    pub task: Option<String>,
    pub endpoint: Option<String>,
    /// A state, or `undelivered` for all that have ended and were not delivered.
    pub state: Option<&'static str>,
    pub reason: Option<&'static str>,
    pub outcome: Option<&'static str>,
    pub status: Option<u16>,
    pub mode: Option<&'static str>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub failed_since: Option<String>,
    pub failed_until: Option<String>,
}

impl ResendShape {
    pub fn new(row: &ResendRow) -> Self {
        let (filter, counts, form) = (&row.filter, row.counts, row.form);
        let state = filter.state.map(|state| state.name());
        Self {
            resend_id: row.id.clone(),
            state: row.state.name(),
            matched: row.matched,
            looked_at: counts.looked_at(),
            opened: counts.opened,
            left_alone: counts.looked_at() - counts.opened,
            busy: counts.busy,
            no_body: counts.no_body,
            refused: counts.refused,
            rate: row.rate,
            filter: ResendFilterShape {
                team: filter.team.clone(),
                task: filter.task.clone(),
                endpoint: row.endpoint.clone(),
                state: state.or(filter.undelivered.then_some("undelivered")),
                reason: filter.reason.map(|reason| reason.name()),
                outcome: filter.outcome.map(|outcome| outcome.name()),
                status: filter.status,
                mode: filter.mode.map(|mode| mode.name()),
                since: time(filter.since),
                until: time(filter.until),
                failed_since: time(filter.failed.map(|span| span.from)),
                failed_until: time(filter.failed.map(|span| span.until)),
            },
            to_default: form.to_default,
            allow_new_origin: form.allow_new_origin,
            new_id: form.new_id,
            created_at: row.created_at.to_string(),
            created_by: row.created_by.clone(),
            changed_at: row.changed_at.to_string(),
        }
    }
}

/// How a job goes on.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResendResume {
    /// At most so many callbacks a second from now on. Without it, as before.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub rate: Option<u32>,
}
