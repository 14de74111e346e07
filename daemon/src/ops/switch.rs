//! The switch of a team, or of one of its origins, to another form of `scale-callback-auth`: tried first with test keys,
//! by a right callback that must be taken and a spoiled one that must not.

use bytes::Bytes;

use super::checks::Checked;
use super::teams::{no_team, origin};
use super::{Caller, Ops, OpsError};
use crate::model::attempt::Outcome;
use crate::model::endpoint::Origin;
use crate::model::team::{AuthForm, Mode, Team};
use crate::net::exchange::Outgoing;
use crate::net::target::Target;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Switch {
    pub to: AuthForm,
    /// Of one origin; the team's own form otherwise.
    pub origin: Option<String>,
    /// Where to try it; the team's default otherwise.
    pub url: Option<String>,
}

/// What a switch came to.
#[derive(Debug, Clone)]
pub struct Switched {
    pub from: AuthForm,
    pub to: AuthForm,
    pub origin: Option<Origin>,
    pub switched: bool,
    /// A sentence: what was done, or why nothing was.
    pub result: String,
    /// A right callback; its steps tell where it failed.
    pub right: Checked,
    /// A spoiled one, if the right one was taken.
    pub spoiled: Option<Checked>,
}

impl Ops {
    /// Tries the other form in test mode and, if the receiver tells right from wrong, uses it from now on.
    ///
    /// # Errors
    /// `not_found`, `conflict` when that form is sent already, `key_state` without keys of that form, `invalid_request`,
    /// or the store's. A receiver that is not ready is no error: nothing is switched then, and the answer says why.
    pub async fn switch_auth(&self, caller: &Caller, team: &str, switch: Switch) -> Result<Switched, OpsError> {
        let entry = self.directory.team(team).await?.ok_or_else(|| no_team(team))?;
        let origin = switch.origin.as_deref().map(origin).transpose()?;
        let (from, to) = (form_of(&entry.team, origin.as_ref()), switch.to);
        let where_to = origin.as_ref().map_or_else(|| team.to_owned(), ToString::to_string);
        if from == to {
            return Err(OpsError::Conflict(format!("{where_to} is sent the {} form already", to.name())));
        }
        for mode in [Mode::Live, Mode::Test] {
            if entry.signer(mode, to).is_none() {
                let kind = if to == AuthForm::Hmac { "hmac" } else { "callback-auth" };
                return Err(OpsError::KeyState(format!(
                    "the team has no promoted {kind} key for {} callbacks: create one, install it at the receiver, promote it",
                    mode.name()
                )));
            }
        }
        let url = switch.url.as_deref().or(entry.team.default_url(Mode::Test));
        let url =
            url.ok_or_else(|| OpsError::InvalidRequest("the team has no default URL: name a URL to try".to_owned()))?;
        let target = Target::parse(url).map_err(|error| OpsError::UrlRefused(error.to_string()))?;
        if let Some(origin) = origin.as_ref().filter(|origin| **origin != target.origin) {
            return Err(OpsError::InvalidRequest(format!("name a URL at {origin} to try")));
        }
        let right = self.try_callback(caller, team, Some(url), Mode::Test, Some(to), |_| {}).await?;
        let answer = |switched, result: String, spoiled| Switched {
            from,
            to,
            origin: origin.clone(),
            switched,
            result,
            right: right.clone(),
            spoiled,
        };
        if !right.succeeded() {
            let why =
                "a right test callback was not taken in the new form, its last step says why; nothing was switched";
            return Ok(answer(false, why.to_owned(), None));
        }
        let spoiled = self.try_callback(caller, team, Some(url), Mode::Test, Some(to), spoil).await?;
        let outcome = spoiled.steps.last().and_then(|step| step.failed);
        if !matches!(outcome, Some(Outcome::ClientError | Outcome::Gone)) {
            let why = if spoiled.succeeded() {
                "a spoiled test callback was taken as well: the receiver verifies nothing; nothing was switched"
            } else {
                "a spoiled test callback was not refused with a status of 4xx; nothing was switched"
            };
            return Ok(answer(false, why.to_owned(), Some(spoiled)));
        }
        self.set_form(caller, team, origin.as_ref(), from, to).await?;
        let old = if to == AuthForm::Hmac { "callback auth key" } else { "hmac key" };
        let result = format!(
            "a right test callback was taken and a spoiled one refused: {where_to} is sent the {} form from now on; once \
             the receiver needs its {old} no more, revoke it",
            to.name()
        );
        Ok(answer(true, result, Some(spoiled)))
    }

    /// Changes the form if nobody changed it meanwhile.
    async fn set_form(
        &self,
        caller: &Caller,
        team: &str,
        origin: Option<&Origin>,
        from: AuthForm,
        to: AuthForm,
    ) -> Result<(), OpsError> {
        let (own, id) = (origin.cloned(), team.to_owned());
        let place = origin.map_or_else(|| "team".to_owned(), ToString::to_string);
        let decide = move |mut team: Team| {
            if form_of(&team, own.as_ref()) != from {
                return Err(OpsError::Conflict(format!("the form of {id} was changed meanwhile")));
            }
            match own {
                None => team.auth_form = to,
                Some(origin) => {
                    team.origin_forms.retain(|(known, _)| *known != origin);
                    team.origin_forms.push((origin, to));
                }
            }
            Ok((team, format!("{place}: {} -> {}", from.name(), to.name())))
        };
        let audit = caller.entry("team.switch_auth", team, "");
        self.admin.update_team(team, audit, decide).await?.ok_or_else(|| no_team(team))??;
        self.directory.refresh();
        Ok(())
    }
}

fn form_of(team: &Team, origin: Option<&Origin>) -> AuthForm {
    origin.map_or(team.auth_form, |origin| team.form_for(origin))
}

/// What a forger could send who saw a callback: another body, and where a key travels another key.
fn spoil(outgoing: &mut Outgoing) {
    let mut body = outgoing.body.to_vec();
    // A digit of the task's id: still JSON, still a callback.
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
