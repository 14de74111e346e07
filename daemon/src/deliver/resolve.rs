//! Finds where a callback goes and with which keys it is signed, at each attempt again. A refusal is an outcome like
//! any other.

use std::sync::Arc;

use super::directory::TeamEntry;
use crate::model::attempt::{Outcome, SentWithId};
use crate::model::endpoint::{QueueKey, QueueTarget};
use crate::model::team::{AuthForm, HttpPolicy, Mode, Team};
use crate::net::target::{Target, UrlError};
use crate::schedule::LaneKey;

/// Where a callback goes, and in which form it is authenticated.
pub struct Resolved {
    pub target: Target,
    pub form: AuthForm,
    pub mode: Mode,
    /// The URL is the team's default one, not the task's own.
    pub follows_default: bool,
    pub entry: Arc<TeamEntry>,
}

impl Resolved {
    /// Names what of the team's settings the callback is sent with.
    pub fn sent_with(&self) -> Option<SentWithId> {
        self.entry.sent_with(self.mode, self.form, self.follows_default)
    }
}

/// Why an attempt ends before it begins.
#[derive(Debug)]
pub struct Refusal {
    pub outcome: Outcome,
    pub why: String,
}

impl Refusal {
    fn new(outcome: Outcome, why: impl ToString) -> Self {
        Self { outcome, why: why.to_string() }
    }
}

/// The URL a callback goes to: its task's own, else the team's default.
pub fn url_of<'u>(own: Option<&'u str>, team: &'u Team, mode: Mode) -> Option<&'u str> {
    named(own).or_else(|| team.default_url(mode))
}

/// The URL of its own that a task names.
fn named(own: Option<&str>) -> Option<&str> {
    own.filter(|url| !url.is_empty())
}

/// Where a callback of `team` goes and in which form, as far as that does not depend on keys.
///
/// # Errors
/// A [`Refusal`], with its outcome. Each of them ends the callback.
pub fn judge(
    own: Option<&str>,
    mode: Mode,
    team: &Team,
    http: HttpPolicy,
    form: Option<AuthForm>,
) -> Result<(Target, AuthForm), Refusal> {
    let url = url_of(own, team, mode)
        .ok_or_else(|| Refusal::new(Outcome::NoUrl, "neither the task nor its team has a callback URL"))?;
    let target = Target::parse(url).map_err(|error| Refusal::new(outcome_of(error), error))?;
    // This comes before any key is read, because the key is sent to the URL, and a task may name its own URL.
    if !team.allows(&target.origin) {
        return Err(Refusal::new(Outcome::OriginNotAllowed, "the origin is not among the team's allowed origins"));
    }
    let form = form.unwrap_or_else(|| team.form_for(&target.origin));
    let policy = team.http_policy(http);
    if !target.origin.https && !policy.allows(form) {
        let why = match policy {
            HttpPolicy::HmacOnly => "over http only the hmac form is allowed",
            HttpPolicy::Allow | HttpPolicy::Refuse => "http is refused",
        };
        return Err(Refusal::new(Outcome::HttpNotAllowed, why));
    }
    Ok((target, form))
}

/// Resolves a callback of `entry`'s team.
///
/// # Errors
/// A [`Refusal`], with its outcome.
pub fn resolve(own: Option<&str>, mode: Mode, entry: Arc<TeamEntry>, http: HttpPolicy) -> Result<Resolved, Refusal> {
    resolve_in(own, mode, entry, http, None)
}

/// The same as [`resolve`], but in another form than the team's if one is given.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_in(
    own: Option<&str>,
    mode: Mode,
    entry: Arc<TeamEntry>,
    http: HttpPolicy,
    form: Option<AuthForm>,
) -> Result<Resolved, Refusal> {
    let (target, form) = judge(own, mode, &entry.team, http, form)?;
    if entry.signer(mode, form).is_none() {
        let why = format!("the team has no usable {} keys of the {} form", mode.name(), form.name());
        return Err(Refusal::new(Outcome::NoKey, why));
    }
    Ok(Resolved { target, form, mode, follows_default: named(own).is_none(), entry })
}

fn outcome_of(error: UrlError) -> Outcome {
    match error {
        UrlError::EmailAddress => Outcome::EmailNotSupported,
        UrlError::TooLong | UrlError::NotAUrl | UrlError::Scheme | UrlError::BadPort => Outcome::UrlInvalid,
    }
}

/// The queue in which a callback waits: that of its own URL's origin, or that of the default URL which it follows. A
/// callback with an invalid URL of its own follows no default and has no endpoint; its attempt will end it.
pub fn queue_of(team: &Arc<str>, own: Option<&str>, mode: Mode) -> QueueKey {
    let target = match named(own) {
        None => QueueTarget::Default(mode),
        Some(url) => Target::parse(url).map_or(QueueTarget::Nowhere, |target| QueueTarget::Origin(target.origin)),
    };
    QueueKey { team: Arc::clone(team), target }
}

/// The lane in which the callbacks of a queue wait now.
pub fn lane_of(queue: &QueueKey, entry: Option<&TeamEntry>) -> LaneKey {
    let origin = match &queue.target {
        QueueTarget::Origin(origin) => Some(origin.clone()),
        QueueTarget::Default(mode) => entry
            .and_then(|entry| entry.team.default_url(*mode))
            .and_then(|url| Target::parse(url).ok())
            .map(|target| target.origin),
        QueueTarget::Nowhere => None,
    };
    LaneKey { team: Arc::clone(&queue.team), origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_callback_without_its_own_url_follows_the_default() {
        let team: Arc<str> = "team_acme".into();
        let queue = |own| queue_of(&team, own, Mode::Live).target.name();
        assert_eq!(queue(Some("https://a.example/x")), "https://a.example:443");
        for none in [None, Some("")] {
            assert_eq!(queue(none), "default:live");
        }
        for invalid in ["nonsense", "dev@acme.example", "ftp://a.example/"] {
            assert_eq!(queue(Some(invalid)), "none", "{invalid}");
            assert_eq!(lane_of(&queue_of(&team, Some(invalid), Mode::Live), None).origin, None);
        }
    }
}
