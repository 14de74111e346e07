//! A team's receiver, tried from the daemon's own network with a signed test callback, step by step.

use std::time::Instant;

use bytes::Bytes;
use scale_callback_serve::text::hex;

use super::policy::Operation;
use super::teams::no_team;
use super::{Caller, Inner, OpsError, Parts, Session, random};
use crate::deliver::resolve::{resolve_in, url_of};
use crate::deliver::sign::{Content, sign};
use crate::model::callback::{CallbackId, EventKey};
use crate::model::team::{AuthForm, Mode};
use crate::net::exchange::Outgoing;
use crate::net::probe::Step;
use crate::net::target::Target;

/// The event type by which a receiver recognises a test.
pub const EVENT_TYPE: &str = "callback.test";

/// The result of a check.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Scheme, host and port. The rest of a URL is a secret.
    pub origin: Option<String>,
    pub callback_id: String,
    pub mode: Mode,
    pub steps: Vec<Step>,
}

impl Checked {
    pub fn succeeded(&self) -> bool {
        self.steps.iter().all(|step| step.failed.is_none())
    }

    /// Whether the request was sent. If not, the receiver has refused nothing.
    pub fn was_sent(&self) -> bool {
        self.steps.iter().any(|step| step.name == Step::POST)
    }

    /// Whether the receiver answered that it does not know the keys.
    pub fn is_unauthenticated(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.status, Some(401 | 403)))
    }
}

/// One test callback.
pub(super) struct Trial<'t> {
    pub(super) team: &'t str,
    /// If there is none, the team's default URL is tried.
    pub(super) url: Option<&'t str>,
    pub(super) mode: Mode,
    /// Another form of the auth header than the team's own.
    pub(super) form: Option<AuthForm>,
}

impl Session {
    /// Sends one signed test callback of `team` to `url`, or to the team's default URL, and reports each step. Only the
    /// audit records it.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, or the store's. A receiver that fails is not an error: the steps say so.
    pub async fn check_team(&self, team: &str, url: Option<&str>, mode: Mode) -> Result<Checked, OpsError> {
        self.allow_team(Operation::CheckTeam, team)?;
        self.inner.try_callback(&self.caller, Trial { team, url, mode, form: None }, |_| {}).await
    }
}

impl Inner {
    /// Sends one test callback, after `change` has changed the request.
    pub(super) async fn try_callback(
        &self,
        caller: &Caller,
        trial: Trial<'_>,
        change: impl FnOnce(&mut Outgoing),
    ) -> Result<Checked, OpsError> {
        let Trial { team, url, mode, form } = trial;
        let Parts { directory, clock, engine, admin, .. } = &self.parts;
        let entry = directory.team(team).await?.ok_or_else(|| no_team(team))?;
        let task_id = format!("test_{}", hex(&random::<8>()));
        let now = clock.now();
        let id = CallbackId::of(team, EventKey::Id(&task_id), now.millis()).to_string();
        let wanted = url.filter(|url| !url.is_empty());
        let origin = url_of(wanted, &entry.team, mode).and_then(|url| Target::parse(url).ok());
        let origin = origin.map(|target| target.origin.to_string());
        let audited = format!("{} {id} to {}", mode.name(), origin.as_deref().unwrap_or("nowhere"));
        admin.note(caller.entry(Operation::CheckTeam, team, audited)).await?;
        let checked = |steps| Checked { origin, callback_id: id.clone(), mode, steps };
        let begun = Instant::now();
        let resolved = match resolve_in(wanted, mode, entry, engine.client.policy().http, form) {
            Ok(resolved) => resolved,
            Err(refusal) => {
                let (took, failed) = (begun.elapsed(), Some(refusal.outcome));
                return Ok(checked(vec![Step { name: "url", took, detail: refusal.why, failed, status: None }]));
            }
        };
        let detail = format!("{}, {} keys, {} form", resolved.target.origin, mode.name(), resolved.form.name());
        let first = Step { name: "url", took: begun.elapsed(), detail, failed: None, status: None };
        let content = Content { id: &id, at: now, attempt: 1, body: body(&task_id, mode) };
        let mut outgoing = sign(resolved, content, &engine.user_agent);
        change(&mut outgoing);
        let end = tokio::time::Instant::now() + engine.client.total_deadline();
        let rest = engine.client.probe(&outgoing, now, end).await;
        Ok(checked([vec![first], rest].concat()))
    }
}

/// The body of a test callback, which names itself a test.
fn body(task_id: &str, mode: Mode) -> Bytes {
    let is_test = mode == Mode::Test;
    Bytes::from(format!(
        r#"{{"task":{{"task_id":"{task_id}","type":"{EVENT_TYPE}","event_type":"{EVENT_TYPE}","status":"completed","is_test":{is_test},"response":{{}}}},"response":{{}},"task_id":"{task_id}"}}"#
    ))
}
