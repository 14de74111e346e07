//! What a change of a team does to its pending callbacks: how many of them would end at their next attempt, or at its
//! failure, though they go on today.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Inner, OpsError};
use crate::deliver::resolve;
use crate::model::attempt::Outcome;
use crate::model::retry::RetryPolicy;
use crate::model::settlement::Pending;
use crate::model::state::State;
use crate::model::team::{HttpPolicy, Team};
use crate::store::reads::{CallbackFilter, Page};

/// Pending callbacks that are read at once.
const PAGE: usize = 1_000;
/// The most pending callbacks that are looked at, and for how long: the answer comes within the deadline of a request.
const LOOKED_AT: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(5);
/// The name of the end of a callback that has no retry left.
const EXHAUSTED: &str = "exhausted";

/// What holds for teams without settings of their own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Installation {
    pub(super) retry: RetryPolicy,
    pub(super) http: HttpPolicy,
}

/// Callbacks that a change would end, by how they would end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    by_name: BTreeMap<&'static str, u64>,
    /// Not all pending callbacks were looked at.
    incomplete: bool,
}

impl Ending {
    /// The sentence for the one who asked for the change; nothing where no callback would end.
    pub(super) fn sentence(&self, team: &str) -> Option<String> {
        let count: u64 = self.by_name.values().sum();
        let least = if self.incomplete { "at least " } else { "" };
        let unseen = if self.incomplete { "; there are too many to look at all of them" } else { "" };
        let callbacks = if count == 1 { "callback" } else { "callbacks" };
        let names: Vec<_> = self.by_name.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let named = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        (count > 0 || self.incomplete).then(|| {
            format!(
                "this change would end {least}{count} pending {callbacks} of team {team}{named}{unseen}. Each ends at its \
                 next attempt, or after it if the attempt fails. Nothing was changed. To change the team all the same, add \
                 --yes to the command, or confirm=true to the request"
            )
        })
    }
}

/// How a pending callback ends at its next attempt if that fails; `None` if it goes on.
fn end(pending: &Pending, team: &Team, installation: Installation) -> Option<&'static str> {
    let mode = pending.facts.mode;
    match resolve::judge(pending.url.as_deref(), mode, team, installation.http, None) {
        Err(refusal) => Some(refusal.outcome.name()),
        Ok(_) if !team.retry.over(&installation.retry).has_retry_after(&pending.progress) => Some(EXHAUSTED),
        Ok(_) if pending.last_outcome == Some(Outcome::Gone) && team.retry.over(&installation.retry).end_on_gone => {
            Some(Outcome::Gone.name())
        }
        Ok(_) => None,
    }
}

/// Whether two states of a team differ in a setting that can end callbacks.
fn may_end(before: &Team, after: &Team) -> bool {
    let relevant = |team: &Team| Team { name: String::new(), ..team.clone() };
    relevant(before) != relevant(after)
}

impl Inner {
    /// The pending callbacks that a change of their team would end.
    pub(super) async fn ending(&self, before: &Team, after: &Team) -> Result<Ending, OpsError> {
        let mut ending = Ending::default();
        if !may_end(before, after) {
            return Ok(ending);
        }
        let (retry, http) = (self.parts.directory.retry(), self.parts.engine.client.policy().http);
        let installation = Installation { retry, http };
        let began = Instant::now();
        let (mut next, mut looked) = (None, 0_usize);
        loop {
            let filter = CallbackFilter {
                team: Some(before.id.to_string()),
                state: Some(State::Pending),
                ..CallbackFilter::default()
            };
            let found = self.parts.reads.callbacks(filter, Page { before: next, limit: PAGE }).await?;
            looked = looked.saturating_add(found.docs.len());
            for pending in found.docs.iter().filter_map(|(_, rows)| rows.live()) {
                if end(pending, before, installation).is_none()
                    && let Some(name) = end(pending, after, installation)
                {
                    *ending.by_name.entry(name).or_default() += 1;
                }
            }
            next = found.next;
            if next.is_none() {
                return Ok(ending);
            }
            if looked >= LOOKED_AT || began.elapsed() >= PATIENCE {
                return Ok(Ending { incomplete: true, ..ending });
            }
        }
    }
}

#[cfg(test)]
mod tests;
