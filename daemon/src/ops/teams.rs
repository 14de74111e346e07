//! Teams: created, listed, changed.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::policy::{self, Operation};
use super::{Creation, Inner, OpsError, Session, created, named, required};
use crate::model::endpoint::Origin;
use crate::model::retry::RetryPolicy;
use crate::model::team::{AuthForm, HttpPolicy, RetryOverride, Team};
use crate::net::egress::{CUSTOMERS_REASON, judge, judge_name};
use crate::net::target::{Target, TargetHost};
use crate::store::admin::{IdempotencyKey, Made};

const MAX_ID: usize = 128;
const MAX_NAME: usize = 200;
const MAX_ORIGINS: usize = 100;

/// What may be changed of a team. `None` leaves a value as it is, `Some(None)` removes it.
#[derive(Debug, Clone, Default)]
pub struct TeamChange {
    pub name: Option<String>,
    pub default_url: Option<Option<String>>,
    pub default_url_test: Option<Option<String>>,
    pub allowed_origins: Option<Vec<String>>,
    pub auth_form: Option<String>,
    /// Origins that have a form of their own.
    pub origin_forms: Option<Vec<(String, String)>>,
    pub http: Option<Option<String>>,
    pub retries: Option<Option<u32>>,
    pub horizon: Option<Option<Duration>>,
    pub end_on_gone: Option<Option<bool>>,
}

impl Session {
    /// Creates a team, together with its keys and signing secrets, which are in use at once.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `url_refused`, `conflict`, `idempotency_mismatch`, or the store's.
    pub async fn create_team(
        &self,
        id: &str,
        change: TeamChange,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<Team>, OpsError> {
        self.allow(Operation::CreateTeam)?;
        check_new_id(id)?;
        let team = self.inner.changed(blank(id), change)?;
        let keys = self.inner.first_keys(&team.id);
        let audit = self.caller.entry(Operation::CreateTeam, id, describe(&team));
        let made = self.parts().admin.create_team(team.clone(), keys, once, audit).await?;
        if made == Made::Exists {
            check_not_deleted(&self.inner.team(id).await?)?;
        }
        self.parts().directory.refresh();
        match created(made, || format!("there is a team {id} already"))? {
            None => Ok(Creation::New(team)),
            Some(id) => Ok(Creation::Repeated(self.inner.team(&id).await?)),
        }
    }

    /// Changes the given values of a team. A change that would end pending callbacks is done only if it is `confirmed`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid_request`, `url_refused`, `confirmation_needed`, or the store's.
    pub async fn update_team(&self, id: &str, change: TeamChange, confirmed: bool) -> Result<Team, OpsError> {
        self.allow_team(Operation::UpdateTeam, id)?;
        if !confirmed {
            let before = self.inner.team(id).await?;
            let after = self.inner.changed(before.clone(), change.clone())?;
            if let Some(sentence) = self.inner.ending(&before, &after).await?.sentence(id) {
                return Err(OpsError::ConfirmationNeeded(sentence));
            }
        }
        let inner = Arc::clone(&self.inner);
        let decide = move |before: Team| {
            let after = inner.changed(before.clone(), change)?;
            let audited = format!("{} -> {}", describe(&before), describe(&after));
            Ok::<_, OpsError>((after, audited))
        };
        let audit = self.caller.entry(Operation::UpdateTeam, id, "");
        let after = self.parts().admin.update_team(id, audit, decide).await?.ok_or_else(|| no_team(id))??;
        self.parts().directory.refresh();
        Ok(after)
    }

    /// One team.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, or the store's.
    pub async fn team(&self, id: &str) -> Result<Team, OpsError> {
        self.allow_team(Operation::Team, id)?;
        Ok(self.shown(self.inner.team(id).await?))
    }

    /// Teams in the order of their ids, from the first one after the id `after`.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn teams(&self, after: Option<String>, limit: usize) -> Result<Vec<Team>, OpsError> {
        self.allow(Operation::Teams)?;
        let admin = &self.parts().admin;
        let Some(own) = self.caller.teams.names() else {
            let teams = admin.teams(after, limit).await?;
            return Ok(teams.into_iter().map(|team| self.shown(team)).collect());
        };
        let mut found = Vec::new();
        for id in own.iter().filter(|id| after.as_ref().is_none_or(|after| *id > after)) {
            if found.len() == limit {
                break;
            }
            found.extend(admin.team(id).await?.map(|team| self.shown(team)));
        }
        Ok(found)
    }

    /// The team as its caller may see it: without the paths and queries of its URLs, unless they may change it.
    fn shown(&self, team: Team) -> Team {
        if policy::sees_urls(&self.caller) {
            return team;
        }
        let [default_url, default_url_test] = [&team.default_url, &team.default_url_test].map(|url| {
            let origin = url.as_deref().map(|url| Target::parse(url).map(|target| target.origin.to_string()));
            // A URL that can't be read is not shown either.
            origin.map(Result::unwrap_or_default)
        });
        Team { default_url, default_url_test, ..team }
    }
}

impl Inner {
    pub(super) async fn team(&self, id: &str) -> Result<Team, OpsError> {
        self.parts.admin.team(id).await?.ok_or_else(|| no_team(id))
    }

    /// Checks that the team of a filter exists, so that a mistyped one is not answered with an empty list.
    ///
    /// # Errors
    /// `not_found`, or the store's.
    pub(super) async fn check_team_exists(&self, id: &str) -> Result<(), OpsError> {
        if self.parts.directory.team(id).await?.is_some() {
            return Ok(());
        }
        // What happened to a deleted team can be looked up for as long as it is kept.
        self.team(id).await.map(drop)
    }

    /// The team after a change, if it may be so.
    fn changed(&self, mut team: Team, change: TeamChange) -> Result<Team, OpsError> {
        check_not_deleted(&team)?;
        let concerns_http = change.default_url.is_some() || change.default_url_test.is_some() || change.http.is_some();
        if let Some(name) = change.name {
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return Err(OpsError::invalid(format!("a team's name is 1 to {MAX_NAME} bytes of text")));
            }
            team.name = name;
        }
        if let Some(url) = change.default_url {
            team.default_url = url.filter(|url| !url.is_empty());
        }
        if let Some(url) = change.default_url_test {
            team.default_url_test = url.filter(|url| !url.is_empty());
        }
        if let Some(origins) = change.allowed_origins {
            team.allowed_origins = origins.iter().map(|text| origin(text)).collect::<Result<_, _>>()?;
        }
        if let Some(form) = change.auth_form {
            team.auth_form = auth_form(&form)?;
        }
        if let Some(forms) = change.origin_forms {
            let read = |(o, form): &(String, String)| Ok::<_, OpsError>((origin(o)?, auth_form(form)?));
            team.origin_forms = forms.iter().map(read).collect::<Result<_, _>>()?;
        }
        if team.allowed_origins.len() > MAX_ORIGINS || team.origin_forms.len() > MAX_ORIGINS {
            return Err(OpsError::invalid(format!("at most {MAX_ORIGINS} origins")));
        }
        if let Some(http) = change.http {
            team.http = named("http", http.as_deref())?;
            let installation = self.parts.engine.client.policy().http;
            if let Some(own) = team.http.filter(|own| own.is_looser_than(installation)) {
                return Err(OpsError::invalid(format!(
                    "http can't be \"{}\": a team can only be stricter than the installation, where egress.http is \"{}\"",
                    own.name(),
                    installation.name()
                )));
            }
        }
        team.retry.retries = change.retries.unwrap_or(team.retry.retries);
        team.retry.horizon = change.horizon.unwrap_or(team.retry.horizon);
        team.retry.end_on_gone = change.end_on_gone.unwrap_or(team.retry.end_on_gone);
        if team.retry.retries.is_some_and(|retries| retries > RetryPolicy::MOST_RETRIES) {
            return Err(OpsError::invalid(format!("at most {} retries", RetryPolicy::MOST_RETRIES)));
        }
        // Only a change is judged: an older version may have allowed more.
        let horizon = change.horizon.flatten();
        if horizon.is_some_and(|horizon| horizon.is_zero() || horizon > RetryPolicy::LONGEST_HORIZON) {
            return Err(OpsError::invalid("the horizon is between 1 second and 30 days (720 hours)"));
        }
        for url in [&team.default_url, &team.default_url_test].into_iter().flatten() {
            self.judge_url(&team, url)?;
            // The installation may have become stricter since the URL was set. That does not stand in the way of other
            // changes.
            if concerns_http {
                self.judge_http(&team, url)?;
            }
        }
        Ok(team)
    }

    /// Judges whether callbacks may go to a default URL that begins with `http://`.
    fn judge_http(&self, team: &Team, url: &str) -> Result<(), OpsError> {
        let target = Target::parse(url).map_err(|error| OpsError::UrlRefused(error.to_string()))?;
        let policy = team.http_policy(self.parts.engine.client.policy().http);
        if target.origin.https || policy.allows(team.form_for(&target.origin)) {
            return Ok(());
        }
        Err(OpsError::UrlRefused(format!(
            "the default URL begins with http://, which the policy \"{}\" of the installation or the team refuses; name an \
             https:// URL",
            policy.name()
        )))
    }

    /// Judges a URL when it is saved: its form, and its host as far as that needs no look-up. A name is judged again,
    /// together with its addresses, at every connection.
    fn judge_url(&self, team: &Team, url: &str) -> Result<(), OpsError> {
        let target = Target::parse(url).map_err(|error| OpsError::UrlRefused(error.to_string()))?;
        if !team.allows(&target.origin) {
            return Err(OpsError::UrlRefused(format!("{} is not among the team's allowed origins", target.origin)));
        }
        let policy = self.parts.engine.client.policy();
        let port = target.origin.port;
        let judged = match &target.host {
            TargetHost::Address(ip) => judge(&target.host, *ip, port, &team.id, &policy),
            TargetHost::Name(name) => judge_name(name, port, &team.id, &policy),
        };
        judged.map_err(|denied| OpsError::UrlRefused(format!("{CUSTOMERS_REASON} ({denied})")))
    }
}

/// Checks the id of a new team. Paths of URLs hold it, and there `.` and `..` stand for other paths. Teams that were created with one
/// of these are kept.
fn check_new_id(id: &str) -> Result<(), OpsError> {
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(OpsError::invalid(format!(
            "a team id is 1 to {MAX_ID} bytes without white space or control characters"
        )));
    }
    if matches!(id, "." | "..") {
        return Err(OpsError::invalid(format!("{id:?} can't be a team id, because no path of a URL can hold it")));
    }
    Ok(())
}

/// A new team with nothing set yet.
fn blank(id: &str) -> Team {
    Team {
        id: Arc::from(id),
        name: id.to_owned(),
        default_url: None,
        default_url_test: None,
        allowed_origins: Vec::new(),
        auth_form: AuthForm::Key,
        origin_forms: Vec::new(),
        http: None,
        retry: RetryOverride::default(),
        deleted_at: None,
    }
}

pub(super) fn check_not_deleted(team: &Team) -> Result<(), OpsError> {
    match team.deleted_at {
        Some(at) => Err(OpsError::Conflict(format!("team {} was deleted at {at}; its id is not used again", team.id))),
        None => Ok(()),
    }
}

pub(super) fn no_team(id: &str) -> OpsError {
    OpsError::NotFound(format!("there is no team {}", scale_callback_serve::text::printable(id.as_bytes(), MAX_ID)))
}

pub(super) fn origin(text: &str) -> Result<Origin, OpsError> {
    // It is parsed like a callback's URL, so that both have the same form.
    let plain = |target: &Target| target.path.expose_secret() == "/" && target.authorization.is_none();
    let bare = !text.contains(['?', '#']);
    Target::parse(text).ok().filter(|target| bare && plain(target)).map(|target| target.origin).ok_or_else(|| {
        OpsError::invalid(format!("{text:?} is not an origin; write for example \"https://hooks.example.com\""))
    })
}

fn auth_form(name: &str) -> Result<AuthForm, OpsError> {
    required("auth_form", name)
}

/// A team as the audit shows it, without the paths and queries of its URLs, which may hold secrets.
fn describe(team: &Team) -> String {
    let origin_of = |url: &Option<String>| {
        url.as_deref().and_then(|url| Target::parse(url).ok()).map_or("none".to_owned(), |t| t.origin.to_string())
    };
    let origins: Vec<_> = team.allowed_origins.iter().map(ToString::to_string).collect();
    let forms: Vec<_> = team.origin_forms.iter().map(|(origin, form)| format!("{origin}={}", form.name())).collect();
    let retry = team.retry;
    format!(
        "name={:?} default={} default_test={} allowed=[{}] form={} forms=[{}] http={} retries={} horizon={} end_on_gone={}",
        team.name,
        origin_of(&team.default_url),
        origin_of(&team.default_url_test),
        origins.join(" "),
        team.auth_form.name(),
        forms.join(" "),
        team.http.map_or("installation", HttpPolicy::name),
        or_installation(retry.retries),
        or_installation(retry.horizon.map(|horizon| format!("{}s", horizon.as_secs()))),
        or_installation(retry.end_on_gone),
    )
}

/// The team's own value, or the configuration's.
fn or_installation(value: Option<impl ToString>) -> String {
    value.map_or("installation".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_is_one_that_a_path_of_a_url_can_hold() {
        for good in ["team_acme", "a", "...", ".a", "a/b", "%2e", "ä"] {
            assert!(check_new_id(good).is_ok(), "{good}");
        }
        let long = "x".repeat(MAX_ID + 1);
        for (wrong, why) in [
            (".", "no path of a URL"),
            ("..", "no path of a URL"),
            ("", "1 to 128 bytes"),
            (long.as_str(), "1 to 128 bytes"),
            ("has space", "without white space"),
            ("\u{7}", "control characters"),
        ] {
            let refused = check_new_id(wrong).expect_err(wrong).to_string();
            assert!(refused.contains(why), "{wrong:?}: {refused}");
        }
    }
}
