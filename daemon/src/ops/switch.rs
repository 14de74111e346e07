//! The switch of a team, or of one of its origins, to the other form of `scale-callback-auth`. It is tried first with
//! test keys: the receiver must accept a valid callback in the new form and refuse a forged one.

use bytes::Bytes;

use super::checks::{Checked, Trial};
use super::policy::Operation;
use super::teams::{no_team, origin};
use super::{OpsError, Session};
use crate::deliver::directory::TeamEntry;
use crate::model::attempt::Outcome;
use crate::model::endpoint::Origin;
use crate::model::team::{AuthForm, Mode, Team};
use crate::net::exchange::Outgoing;
use crate::net::target::Target;

/// The request.
#[derive(Debug, Clone)]
pub struct Switch {
    pub to: AuthForm,
    /// The origin to switch. If there is none, the team's own form is switched.
    pub origin: Option<String>,
    /// The URL to try. If there is none, the team's default URL is tried.
    pub url: Option<String>,
}

/// The result of a switch.
#[derive(Debug, Clone)]
pub struct Switched {
    pub from: AuthForm,
    pub to: AuthForm,
    pub origin: Option<Origin>,
    pub switched: bool,
    /// A sentence that says what was done, or why nothing was done.
    pub result: String,
    /// The valid callback. Its steps tell where it failed.
    pub valid: Checked,
    /// The forged callback, if the valid one was accepted.
    pub forged: Option<Checked>,
}

impl Session {
    /// Tries the other form in test mode and, if the receiver tells a valid callback from a forged one, uses that form
    /// from now on.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` when that form is in use already, `key_state` without keys of that form,
    /// `invalid_request`, or the store's. A receiver that is not ready is not an error: nothing is switched then, and
    /// the answer says why.
    pub async fn switch_auth(&self, team: &str, switch: Switch) -> Result<Switched, OpsError> {
        self.allow_team(Operation::SwitchAuth, team)?;
        let plan = self.plan(team, switch).await?;
        let trial = || Trial { team, url: Some(&plan.url), mode: Mode::Test, form: Some(plan.to) };
        let valid = self.inner.try_callback(&self.caller, trial(), |_| {}).await?;
        let mut answer = Switched {
            from: plan.from,
            to: plan.to,
            origin: plan.origin.clone(),
            switched: false,
            result: String::new(),
            valid,
            forged: None,
        };
        if !answer.valid.succeeded() {
            answer.result = not_accepted(&answer.valid).to_owned();
            return Ok(answer);
        }
        let forged = self.inner.try_callback(&self.caller, trial(), forge).await?;
        let refused =
            matches!(forged.steps.last().and_then(|step| step.failed), Some(Outcome::ClientError | Outcome::Gone));
        answer.result = match (refused, forged.succeeded()) {
            (true, _) => {
                self.set_form(team, &plan).await?;
                answer.switched = true;
                plan.done(team)
            }
            (false, true) => {
                "nothing was switched: the receiver accepted a forged test callback as well, so it verifies \
                              nothing"
                    .to_owned()
            }
            (false, false) => "nothing was switched: the receiver did not refuse a forged test callback with a status \
                               of 4xx"
                .to_owned(),
        };
        answer.forged = Some(forged);
        Ok(answer)
    }

    /// Checks what was asked, before anything is sent.
    async fn plan(&self, team: &str, switch: Switch) -> Result<Plan, OpsError> {
        let entry = self.parts().directory.team(team).await?.ok_or_else(|| no_team(team))?;
        let origin = switch.origin.as_deref().map(origin).transpose()?;
        let (from, to) = (form_of(&entry.team, origin.as_ref()), switch.to);
        if from == to {
            let place = origin.as_ref().map_or_else(|| team.to_owned(), ToString::to_string);
            return Err(OpsError::Conflict(format!("{place} is sent the {} form already", to.name())));
        }
        has_keys(&entry, to)?;
        let url = switch.url.as_deref().or(entry.team.default_url(Mode::Test));
        let url = url.ok_or_else(|| OpsError::invalid("the team has no default URL: name a URL to try"))?;
        let target = Target::parse(url).map_err(|error| OpsError::UrlRefused(error.to_string()))?;
        if let Some(origin) = origin.as_ref().filter(|origin| **origin != target.origin) {
            return Err(OpsError::invalid(format!("name a URL at {origin} to try")));
        }
        Ok(Plan { from, to, origin, url: url.to_owned() })
    }

    /// Changes the form, unless somebody else changed it meanwhile.
    async fn set_form(&self, team: &str, plan: &Plan) -> Result<(), OpsError> {
        let (own, id, from, to) = (plan.origin.clone(), team.to_owned(), plan.from, plan.to);
        let decide = move |mut team: Team| {
            if form_of(&team, own.as_ref()) != from {
                return Err(OpsError::Conflict(format!("the form of {id} was changed meanwhile")));
            }
            let place = own.as_ref().map_or_else(|| "team".to_owned(), ToString::to_string);
            match own {
                None => team.auth_form = to,
                Some(origin) => {
                    team.origin_forms.retain(|(known, _)| *known != origin);
                    team.origin_forms.push((origin, to));
                }
            }
            Ok((team, format!("{place}: {} -> {}", from.name(), to.name())))
        };
        let audit = self.caller.entry(Operation::SwitchAuth, team, "");
        self.parts().admin.update_team(team, audit, decide).await?.ok_or_else(|| no_team(team))??;
        self.parts().directory.refresh();
        Ok(())
    }
}

/// A switch that may be tried.
struct Plan {
    from: AuthForm,
    to: AuthForm,
    origin: Option<Origin>,
    url: String,
}

impl Plan {
    fn done(&self, team: &str) -> String {
        let place = self.origin.as_ref().map_or_else(|| team.to_owned(), ToString::to_string);
        let old = if self.to == AuthForm::Hmac { "callback auth key" } else { "hmac key" };
        format!(
            "{place} is sent the {} form from now on: the receiver accepted a valid test callback and refused a forged \
             one. Once the receiver needs its {old} no more, revoke it",
            self.to.name()
        )
    }
}

/// Why nothing was switched after the valid callback failed. It was signed with the team's test keys, which a receiver may
/// lack although it holds the live ones.
fn not_accepted(valid: &Checked) -> &'static str {
    if !valid.was_sent() {
        "nothing was switched: no request was sent; the last step says why"
    } else if valid.is_unauthenticated() {
        "nothing was switched: the receiver did not accept a valid test callback in the new form. It was signed with the \
         team's test keys: does the receiver hold them?"
    } else {
        "nothing was switched: the receiver did not accept a valid test callback in the new form; its last step says why"
    }
}

fn has_keys(entry: &TeamEntry, form: AuthForm) -> Result<(), OpsError> {
    for mode in [Mode::Live, Mode::Test] {
        if entry.signer(mode, form).is_none() {
            let kind = if form == AuthForm::Hmac { "hmac" } else { "callback-auth" };
            return Err(OpsError::KeyState(format!(
                "the team has no promoted {kind} key for {} callbacks: create one, install it at the receiver, promote it",
                mode.name()
            )));
        }
    }
    Ok(())
}

fn form_of(team: &Team, origin: Option<&Origin>) -> AuthForm {
    origin.map_or(team.auth_form, |origin| team.form_for(origin))
}

/// Turns a callback into a forged one, as somebody who saw a callback could send it: with another body, and with
/// another key if a key is sent.
fn forge(outgoing: &mut Outgoing) {
    let mut body = outgoing.body.to_vec();
    // One digit of the task's id is changed, so the body is still the JSON of a callback.
    if let Some(at) = body.windows(5).position(|five| five == b"test_").and_then(|begin| begin.checked_add(5)) {
        body[at] = if body[at] == b'0' { b'1' } else { b'0' };
    }
    outgoing.body = Bytes::from(body);
    let name = scale_callback_auth::header::AUTH;
    let key = outgoing.headers.get(name).map(|value| value.as_bytes().to_vec());
    if let Some(mut key) = key.filter(|key| !key.starts_with(b"t="))
        && let Some(last) = key.last_mut()
    {
        *last = if *last == b'0' { b'1' } else { b'0' };
        if let Ok(mut value) = http::HeaderValue::from_bytes(&key) {
            value.set_sensitive(true);
            outgoing.headers.insert(name, value);
        }
    }
}
