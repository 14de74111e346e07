//! A team's receiver, tried from the daemon's own network: a signed test callback, step by step.

use std::time::Instant;

use bytes::Bytes;
use scale_callback_serve::text::hex;

use super::teams::no_team;
use super::{Caller, Ops, OpsError, random};
use crate::deliver::resolve::{resolve_in, url_of};
use crate::deliver::sign::{Content, sign};
use crate::model::callback::{CallbackId, EventKey};
use crate::model::team::{AuthForm, Mode};
use crate::net::exchange::Outgoing;
use crate::net::probe::Step;

/// What the receiver is told a test is.
pub const EVENT_TYPE: &str = "callback.test";

/// What a check came to.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Scheme, host and port; the rest of a URL is a secret.
    pub origin: Option<String>,
    pub callback_id: String,
    pub mode: Mode,
    pub steps: Vec<Step>,
}

impl Checked {
    pub fn succeeded(&self) -> bool {
        self.steps.iter().all(|step| step.failed.is_none())
    }
}

impl Ops {
    /// Sends one signed test callback of `team` to `url`, or to its default, and tells each step. Nothing of it is
    /// stored but the audit.
    ///
    /// # Errors
    /// `not_found`, or the store's. A receiver that fails is no error: the steps say so.
    pub async fn check_team(
        &self,
        caller: &Caller,
        team: &str,
        url: Option<&str>,
        mode: Mode,
    ) -> Result<Checked, OpsError> {
        self.try_callback(caller, team, url, mode, None, |_| {}).await
    }

    /// Sends one test callback, in `form` if that is another one than the team's, after `change`.
    pub(super) async fn try_callback(
        &self,
        caller: &Caller,
        team: &str,
        url: Option<&str>,
        mode: Mode,
        form: Option<AuthForm>,
        change: impl FnOnce(&mut Outgoing),
    ) -> Result<Checked, OpsError> {
        let entry = self.directory.team(team).await?.ok_or_else(|| no_team(team))?;
        let task_id = format!("test_{}", hex(&random::<8>()));
        let now = self.clock.now();
        let id = CallbackId::of(team, EventKey::Id(&task_id), now.millis()).to_string();
        let wanted = url.filter(|url| !url.is_empty());
        let origin = url_of(wanted, &entry, mode).and_then(|url| crate::net::target::Target::parse(url).ok());
        let origin = origin.map(|target| target.origin.to_string());
        let audited = format!("{} {id} to {}", mode.name(), origin.as_deref().unwrap_or("nowhere"));
        self.admin.note(caller.entry("team.check", team, audited)).await?;
        let checked = |steps| Checked { origin, callback_id: id.clone(), mode, steps };
        let begun = Instant::now();
        let resolved = match resolve_in(wanted, mode, entry, self.engine.client.policy().http, form) {
            Ok(resolved) => resolved,
            Err(refusal) => {
                let (took, failed) = (begun.elapsed(), Some(refusal.outcome));
                return Ok(checked(vec![Step { name: "url", took, detail: refusal.why, failed }]));
            }
        };
        let detail = format!("{}, {} keys, {} form", resolved.target.origin, mode.name(), resolved.form.name());
        let first = Step { name: "url", took: begun.elapsed(), detail, failed: None };
        let content = Content { id: &id, at: now, attempt: 1, body: body(&task_id, mode) };
        let mut outgoing = sign(resolved, content, &self.engine.user_agent);
        change(&mut outgoing);
        let end = tokio::time::Instant::now() + self.engine.client.total_deadline();
        let rest = self.engine.client.probe(&outgoing, now, end).await;
        Ok(checked([vec![first], rest].concat()))
    }
}

/// A callback's body that says of itself that it is a test.
fn body(task_id: &str, mode: Mode) -> Bytes {
    let is_test = mode == Mode::Test;
    Bytes::from(format!(
        r#"{{"task":{{"task_id":"{task_id}","type":"{EVENT_TYPE}","event_type":"{EVENT_TYPE}","status":"completed","is_test":{is_test},"response":{{}}}},"response":{{}},"task_id":"{task_id}"}}"#
    ))
}
