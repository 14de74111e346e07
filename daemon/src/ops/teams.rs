//! Teams: made, listed, changed.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::{Caller, Creation, Ops, OpsError, created};
use crate::model::endpoint::Origin;
use crate::model::team::{AuthForm, HttpPolicy, RetryOverride, Team};
use crate::net::egress::{CUSTOMERS_REASON, Denied, judge, judge_name};
use crate::net::target::{Target, TargetHost};
use crate::store::admin::IdempotencyKey;

const MAX_ID: usize = 128;
const MAX_NAME: usize = 200;
const MAX_ORIGINS: usize = 100;

/// What may be changed of a team; `None` leaves it, `Some(None)` takes it away.
#[derive(Debug, Clone, Default)]
pub struct TeamChange {
    pub name: Option<String>,
    pub default_url: Option<Option<String>>,
    pub default_url_test: Option<Option<String>>,
    pub allowed_origins: Option<Vec<String>>,
    pub auth_form: Option<String>,
    /// Origins with a form of their own.
    pub origin_forms: Option<Vec<(String, String)>>,
    pub http: Option<Option<String>>,
    pub retries: Option<Option<u32>>,
    pub horizon: Option<Option<Duration>>,
    pub end_on_gone: Option<Option<bool>>,
}

impl Ops {
    /// Makes a team, with its keys and signing secrets made and promoted.
    ///
    /// # Errors
    /// `invalid_request`, `url_refused`, `conflict`, `idempotency_mismatch`, or the store's.
    pub async fn create_team(
        &self,
        caller: &Caller,
        id: &str,
        change: TeamChange,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<Team>, OpsError> {
        if id.is_empty() || id.len() > MAX_ID || id.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(OpsError::InvalidRequest(format!(
                "a team id is 1 to {MAX_ID} bytes without white space or control characters"
            )));
        }
        let blank = Team {
            id: Arc::from(id),
            name: id.to_owned(),
            default_url: None,
            default_url_test: None,
            allowed_origins: Vec::new(),
            auth_form: AuthForm::Key,
            origin_forms: Vec::new(),
            http: None,
            retry: RetryOverride::default(),
        };
        let team = self.changed(blank, change)?;
        let keys = self.first_keys(&team.id);
        let audit = caller.entry("team.create", id, describe(&team));
        let made = self.admin.create_team(team.clone(), keys, once, audit).await?;
        self.directory.refresh();
        match created(made, || format!("there is a team {id} already"))? {
            None => Ok(Creation::New(team)),
            Some(id) => Ok(Creation::Repeated(self.team(&id).await?)),
        }
    }

    /// Changes what is given of a team.
    ///
    /// # Errors
    /// `not_found`, `invalid_request`, `url_refused`, or the store's.
    pub async fn update_team(&self, caller: &Caller, id: &str, change: TeamChange) -> Result<Team, OpsError> {
        let ops = self.clone();
        let decide = move |before: Team| {
            let after = ops.changed(before.clone(), change)?;
            let audited = format!("{} -> {}", describe(&before), describe(&after));
            Ok::<_, OpsError>((after, audited))
        };
        let audit = caller.entry("team.update", id, "");
        let after = self.admin.update_team(id, audit, decide).await?.ok_or_else(|| no_team(id))??;
        self.directory.refresh();
        Ok(after)
    }

    /// One team.
    ///
    /// # Errors
    /// `not_found`, or the store's.
    pub async fn team(&self, id: &str) -> Result<Team, OpsError> {
        self.admin.team(id).await?.ok_or_else(|| no_team(id))
    }

    /// Teams in the order of their ids, after `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn teams(&self, after: Option<String>, limit: usize) -> Result<Vec<Team>, OpsError> {
        Ok(self.admin.teams(after, limit).await?)
    }

    fn changed(&self, mut team: Team, change: TeamChange) -> Result<Team, OpsError> {
        if let Some(name) = change.name {
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return Err(OpsError::InvalidRequest(format!("a team's name is 1 to {MAX_NAME} bytes of text")));
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
            return Err(OpsError::InvalidRequest(format!("at most {MAX_ORIGINS} origins")));
        }
        if let Some(http) = change.http {
            let read = |name: String| {
                HttpPolicy::parse(&name).ok_or_else(|| {
                    OpsError::InvalidRequest("http is \"allow\", \"hmac-only\" or \"refuse\"".to_owned())
                })
            };
            team.http = http.map(read).transpose()?;
        }
        team.retry.retries = change.retries.unwrap_or(team.retry.retries);
        team.retry.horizon = change.horizon.unwrap_or(team.retry.horizon);
        team.retry.end_on_gone = change.end_on_gone.unwrap_or(team.retry.end_on_gone);
        if team.retry.retries.is_some_and(|retries| retries > 1_000) {
            return Err(OpsError::InvalidRequest("at most 1000 retries".to_owned()));
        }
        for url in [&team.default_url, &team.default_url_test].into_iter().flatten() {
            self.judge_url(&team, url)?;
        }
        Ok(team)
    }

    /// Judges a URL as it is saved: its form, and its host where that needs no look-up. Names are judged again, with
    /// their addresses, at every connection.
    pub(super) fn judge_url(&self, team: &Team, url: &str) -> Result<(), OpsError> {
        let target = Target::parse(url).map_err(|error| OpsError::UrlRefused(error.to_string()))?;
        if !team.allows(&target.origin) {
            return Err(OpsError::UrlRefused(format!("{} is not among the team's allowed origins", target.origin)));
        }
        let policy = self.engine.client.policy();
        let port = target.origin.port;
        let judged = match &target.host {
            TargetHost::Address(ip) => judge(&target.host, *ip, port, &team.id, &policy),
            TargetHost::Name(name) => judge_name(name, port, &team.id, &policy),
        };
        judged.map_err(|denied| {
            let meant = match denied {
                Denied::Special(_) | Denied::SpecialName(_) => "; an [[egress.allow]] rule would allow it",
                Denied::OwnService | Denied::OwnAddress | Denied::Metadata => "",
            };
            OpsError::UrlRefused(format!("{CUSTOMERS_REASON} ({denied}{meant})"))
        })
    }
}

pub(super) fn no_team(id: &str) -> OpsError {
    OpsError::NotFound(format!("there is no team {}", scale_callback_serve::text::printable(id.as_bytes(), MAX_ID)))
}

pub(super) fn origin(text: &str) -> Result<Origin, OpsError> {
    // Read as a callback's URL is, so that it matches what a callback's URL gives.
    let plain = |target: &Target| target.path.expose_secret() == "/" && target.authorization.is_none();
    let bare = !text.contains(['?', '#']);
    Target::parse(text).ok().filter(|target| bare && plain(target)).map(|target| target.origin).ok_or_else(|| {
        OpsError::InvalidRequest(format!("{text:?} is no origin; write for example \"https://hooks.example.com\""))
    })
}

fn auth_form(name: &str) -> Result<AuthForm, OpsError> {
    AuthForm::parse(name).ok_or_else(|| OpsError::InvalidRequest("auth_form is \"key\" or \"hmac\"".to_owned()))
}

/// A team for the audit: without paths and queries of its URLs, which may hold secrets.
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

/// What a team does not say for itself, the configuration says for all.
fn or_installation(value: Option<impl ToString>) -> String {
    value.map_or("installation".to_owned(), |value| value.to_string())
}
